# expect: train-method-overridden [run]
# about: def train(self, mode=True) sets an own flag and forgets super().train: BatchNorm's and dropout's modes never change
# allow: evaluation-in-train-mode
import torch
from torch import nn
from sklearn.datasets import load_digits


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 10))
        self.noise = True

    def train(self, mode=True):
        self.noise = mode

    def forward(self, x):
        if self.noise:
            x = x + 0.02 * torch.randn_like(x)
        return self.body(x)


torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
net = Net()
opt = torch.optim.Adam(net.parameters(), 2e-3)
for ep in range(4):
    net.train()
    for i in torch.randperm(1400).split(50):
        opt.zero_grad()
        nn.functional.cross_entropy(net(X[i]), y[i]).backward()
        opt.step()
    net.train(False)
    with torch.no_grad():
        print(ep, (net(X[1400:]).argmax(1) == y[1400:]).float().mean().item())
