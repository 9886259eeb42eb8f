# expect: nothing
# about: early stopping with patience; the best weights are deep-copied and loaded at the end; the test set is read once
import copy

import torch
from sklearn.datasets import load_diabetes
from torch import nn


class EarlyStopping:
    def __init__(self, patience=4, min_delta=1e-3):
        self.patience, self.min_delta = patience, min_delta
        self.best, self.wait, self.state = float("inf"), 0, None

    def __call__(self, value, model):
        if value < self.best - self.min_delta:
            self.best, self.wait, self.state = value, 0, copy.deepcopy(model.state_dict())
        else:
            self.wait += 1
        return self.wait >= self.patience


torch.manual_seed(0)
raw = load_diabetes(scaled=False)
perm = torch.randperm(442)
tr, va, te = perm[:300], perm[300:370], perm[370:]
X, y = torch.tensor(raw.data).float(), torch.tensor(raw.target).float().unsqueeze(1)
X, y = (X - X[tr].mean(0)) / X[tr].std(0), (y - y[tr].mean()) / y[tr].std()
model = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 1))
opt = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
stopper, mse = EarlyStopping(), nn.MSELoss()
for epoch in range(60):
    model.train()
    for idx in tr[torch.randperm(300)].split(30):
        opt.zero_grad()
        mse(model(X[idx]), y[idx]).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        stop = stopper(mse(model(X[va]), y[va]).item(), model)
    if stop:
        print("stopped after epoch", epoch)
        break
model.load_state_dict(stopper.state)
model.eval()
with torch.no_grad():
    print("best val", round(stopper.best, 4), "test", round(mse(model(X[te]), y[te]).item(), 4))
