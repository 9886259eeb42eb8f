# expect: dead-units [run]
# about: a bias of -1.5 from a "sparse" initialisation: nearly all ReLU units of the second layer are zero for every sample
# allow: not-learning
# allow: input-ignored
# allow: parameters-without-gradient
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def init(m):
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)
        nn.init.constant_(m.bias, -1.5 if m.out_features == 64 else 0.0)


torch.manual_seed(0)
d = load_digits()
x = torch.tensor(d.data / 16.0, dtype=torch.float32)
y = torch.tensor(d.target)
x = (x - x[:1400].mean()) / x[:1400].std()
train_dl = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
fc1, fc2, fc3 = nn.Linear(64, 40), nn.Linear(40, 64), nn.Linear(64, 10)
model = nn.Sequential(fc1, nn.Tanh(), fc2, nn.ReLU(), fc3).apply(init)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
for epoch in range(4):
    for a, b in train_dl:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        optimizer.step()
    with torch.no_grad():
        alive = (model[:4](x[1400:]) > 0).any(0).sum().item()
        print(epoch, "units alive", alive, "of 64, acc", (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
