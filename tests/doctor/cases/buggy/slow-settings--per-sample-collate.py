# expect: slow-settings [run]
# about: a TensorDataset of 20 000 rows is fetched row by row and stacked, though the tensors lie in memory; slicing would be many times faster
# allow: loader-bound
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X = torch.randn(22000, 20)
y = (X[:, 0] * X[:, 1] + 0.3 * X[:, 2] > 0).long()
loader = DataLoader(TensorDataset(X[:20000], y[:20000]), batch_size=250, shuffle=True)
model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(3):
    start = time.perf_counter()
    for a, b in loader:
        opt.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        opt.step()
    with torch.no_grad():
        acc = (model(X[20000:]).argmax(1) == y[20000:]).float().mean().item()
    print(epoch, round(acc, 3), f"{time.perf_counter() - start:.2f} s")
