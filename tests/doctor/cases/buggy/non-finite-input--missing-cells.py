# expect: non-finite-input [run]
# about: a table with a few missing cells is standardised with nanmean and nanstd, but the cells stay NaN
# allow: non-finite-value
# allow: not-learning
import numpy as np
import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.default_rng(0)
torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
X[rng.random(X.shape) < 0.004] = np.nan
perm = rng.permutation(len(X))
tr, va = perm[:140], perm[140:]
va = va[~np.isnan(X[va]).any(1)]
mean, std = np.nanmean(X[tr], 0), np.nanstd(X[tr], 0)
Z = torch.tensor((X - mean) / std, dtype=torch.float32)
y = torch.tensor(y)
loader = DataLoader(TensorDataset(Z[tr], y[tr]), batch_size=14, shuffle=True)
model = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
opt = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(5):
    for a, b in loader:
        loss = nn.functional.cross_entropy(model(a), b)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, loss.item(), (model(Z[va]).argmax(1) == y[va]).float().mean().item())
