# expect: nothing
# about: an EarlyStopping object keeps the model by reference for its name only; the best weights are in a file, and loaded
import os
import tempfile
import torch
from torch import nn


class EarlyStopping:
    def __init__(self, patience, path):
        self.patience, self.path, self.count, self.best, self.best_model = patience, path, 0, float("inf"), None

    def step(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.best_model = loss, 0, model
            torch.save(model.state_dict(), self.path)
        else:
            self.count += 1
        return self.count >= self.patience


torch.manual_seed(0)
X = torch.randn(500, 8)
y = (X[:, 0] + X[:, 1] + 0.5 * torch.randn(500) > 0).float()
net = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 1), nn.Flatten(0))
opt = torch.optim.Adam(net.parameters(), 3e-3)
bce = nn.BCEWithLogitsLoss()
stop = EarlyStopping(4, os.path.join(tempfile.mkdtemp(), "net.pt"))
for ep in range(12):
    net.train()
    for i in torch.randperm(300).split(30):
        opt.zero_grad()
        bce(net(X[i]), y[i]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        v = bce(net(X[300:400]), y[300:400]).item()
    if stop.step(v, net):
        break
net.load_state_dict(torch.load(stop.path, weights_only=True))
with torch.no_grad():
    print(ep, stop.best, bce(net(X[400:]), y[400:]).item())
