# expect: nothing
# about: Huber loss on targets with gross outliers: single batches have far larger losses, the gradient stays bounded
import torch
from sklearn.datasets import make_regression
from torch import nn

torch.manual_seed(0)
X, y = make_regression(1000, 6, noise=4.0, random_state=0)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
bad = torch.rand(1000) < 0.03
y[bad] += 1500 * torch.randn(int(bad.sum()))
Xtr, ytr, Xte, yte, bad_te = X[:800], y[:800], X[800:], y[800:], bad[800:]
med = ytr.median()
mad = (ytr - med).abs().median()
scale = lambda t: (t - med) / mad

model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
criterion = nn.HuberLoss(delta=1.0)
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
best = None


def val_error():
    model.eval()
    with torch.no_grad():
        e = (model(Xte).squeeze(-1) - scale(yte)).abs()[~bad_te].median().item()
    model.train()
    return e


for epoch in range(14):
    i, perm = 0, torch.randperm(800)
    while i < 800:
        rows = perm[i : i + 40]
        i += 40
        pred = model(Xtr[rows]).squeeze(-1)
        loss = criterion(pred, scale(ytr[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    err = val_error()
    best = err if best is None else min(best, err)
print("median error on clean test rows in units of mad:", round(err, 4), "best", round(best, 4))
