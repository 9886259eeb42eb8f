# expect: best-weights-not-copied [run]
# about: EarlyStopping keeps self.best_model = model; after training it is "returned"
# allow: overfitting
import torch
from torch import nn


class EarlyStopping:
    def __init__(self, patience=4):
        self.patience, self.count, self.best, self.best_model = patience, 0, float("inf"), None

    def __call__(self, val_loss, model):
        if val_loss < self.best:
            self.best, self.count = val_loss, 0
            self.best_model = model
        else:
            self.count += 1
        return self.count >= self.patience


torch.manual_seed(2)
X = torch.randn(300, 12)
y = (X[:, 0] + 0.7 * torch.randn(300) > 0).float()
model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
crit = nn.BCEWithLogitsLoss()
stopper = EarlyStopping()
for epoch in range(40):
    model.train()
    for i in torch.randperm(150).split(30):
        opt.zero_grad()
        crit(model(X[i]), y[i]).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        v = crit(model(X[150:]), y[150:]).item()
    if stopper(v, model):
        break
model = stopper.best_model
with torch.no_grad():
    print(epoch, stopper.best, crit(model(X[150:]), y[150:]).item())
