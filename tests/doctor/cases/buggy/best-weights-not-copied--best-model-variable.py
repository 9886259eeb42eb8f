# expect: best-weights-not-copied [run]
# about: best_model = model inside the loop, then best_model predicts the test set
# allow: overfitting
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from sklearn.datasets import load_diabetes


def fit(model, train_dl, xv, yv, epochs):
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    best_loss, best_model = float("inf"), None
    for epoch in range(epochs):
        model.train()
        for xb, yb in train_dl:
            opt.zero_grad()
            nn.functional.mse_loss(model(xb), yb).backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            val = nn.functional.mse_loss(model(xv), yv).item()
        if val < best_loss:
            best_loss = val
            best_model = model
    return best_model, best_loss


torch.manual_seed(0)
d = load_diabetes()
X, y = torch.tensor(d.data).float() * 20, torch.tensor(d.target).float().unsqueeze(1) / 100
net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
dl = DataLoader(TensorDataset(X[:300], y[:300]), batch_size=30, shuffle=True)
best, loss = fit(net, dl, X[300:370], y[300:370], 15)
with torch.no_grad():
    print(loss, nn.functional.mse_loss(best(X[370:]), y[370:]).item())
