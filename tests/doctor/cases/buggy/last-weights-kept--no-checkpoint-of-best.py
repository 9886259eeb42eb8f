# expect: last-weights-kept [run,source]
# about: the best validation loss is printed and remembered as a number; the weights saved at the end are those of the last epoch
# allow: overfitting
import io

import torch
from sklearn.datasets import make_friedman1
from torch import nn

torch.manual_seed(0)
X, y = make_friedman1(500, noise=4.0, random_state=0)
X, y = torch.tensor((X - 0.5) * 3.4).float(), torch.tensor(y).float()[:, None]
y = (y - y[:120].mean()) / y[:120].std()
xt, yt, xv, yv = X[:120], y[:120], X[120:], y[120:]
model = nn.Sequential(nn.Linear(10, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
best_val, best_epoch = float("inf"), -1
for epoch in range(40):
    model.train()
    for i in torch.randperm(120).split(20):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(xt[i]), yt[i]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = nn.functional.mse_loss(model(xv), yv).item()
    if val < best_val:
        best_val, best_epoch = val, epoch
torch.save(model.state_dict(), io.BytesIO())
print(f"best {best_val:.4f} at epoch {best_epoch}; saved: epoch {epoch} with {val:.4f}")
