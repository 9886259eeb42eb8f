# expect: underfitting [run]
# about: one hidden unit between 64 pixels and ten classes: both losses are flat and far above zero
# allow: not-learning
# allow: dead-units
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(3)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
model = nn.Sequential(nn.Linear(64, 1), nn.Tanh(), nn.Linear(1, 10))
opt = torch.optim.Adam(model.parameters(), lr=2e-2)
for epoch in range(12):
    model.train()
    total = 0.0
    for a, b in train:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(a), b)
        loss.backward()
        opt.step()
        total += loss.item() * len(b) / 1400
    model.eval()
    with torch.no_grad():
        print(epoch, "train", round(total, 3), "val", round(nn.functional.cross_entropy(model(x[1400:]), y[1400:]).item(), 3))
