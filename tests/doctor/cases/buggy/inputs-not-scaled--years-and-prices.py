# expect: inputs-not-scaled [run]
# about: a year of about 2000, an income in tens of thousands and shares in 0..1 go side by side into a linear layer
# allow: initial-loss-off
# allow: learning-rate-too-high
# allow: dead-units
# allow: exploding-gradients
# allow: not-learning
# allow: input-ignored
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.default_rng(0)
torch.manual_seed(0)
n = 1500
year, income, share = rng.integers(1950, 2020, n), rng.normal(40000, 12000, n), rng.random((n, 3))
risk = 0.04 * (year - 1985) - (income - 40000) / 12000 + 2 * share[:, 0] - 1
label = (risk + 0.3 * rng.normal(size=n) > 0).astype(np.int64)
X = torch.tensor(np.column_stack([year, income, share]), dtype=torch.float32)
y = torch.tensor(label)
loader = DataLoader(TensorDataset(X[:1200], y[:1200]), batch_size=50, shuffle=True)
net = nn.Sequential(nn.Linear(5, 32), nn.LeakyReLU(), nn.Linear(32, 2))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(6):
    for a, b in loader:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(a), b)
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, loss.item(), (net(X[1200:]).argmax(1) == y[1200:]).float().mean().item())
