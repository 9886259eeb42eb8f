# expect: underfitting [run]
# about: a linear classifier on circles inside circles: both losses stay at ln 2 from beginning to end
# allow: not-learning
# allow: input-ignored
# allow: learning-rate-too-low
import torch
from sklearn.datasets import make_circles
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, y = make_circles(1500, noise=0.1, factor=0.4, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
train = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=40, shuffle=True)
val = DataLoader(TensorDataset(x[1200:], y[1200:]), batch_size=300)
model = nn.Linear(2, 2)
opt = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(8):
    model.train()
    for a, b in train:
        opt.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        print(epoch, [nn.functional.cross_entropy(model(a), b).item() for a, b in val])
