# expect: symmetric-initialisation [run,source]
# about: own layers made with torch.ones: all hidden units compute the same and go on doing so
# allow: initial-loss-off
# allow: saturated-activations
import torch
from sklearn.datasets import make_moons
from torch import nn


class Dense(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.w = nn.Parameter(torch.ones(i, o) / i)
        self.b = nn.Parameter(torch.zeros(o))

    def forward(self, x):
        return x @ self.w + self.b


torch.manual_seed(0)
pts, lab = make_moons(1000, noise=0.15, random_state=0)
pts, lab = torch.tensor(pts, dtype=torch.float32), torch.tensor(lab, dtype=torch.float32)
mlp = nn.Sequential(Dense(2, 16), nn.Tanh(), Dense(16, 16), nn.Tanh(), Dense(16, 1), nn.Flatten(0))
opt = torch.optim.Adam(mlp.parameters(), lr=1e-2)
bce = nn.BCEWithLogitsLoss()
for epoch in range(10):
    for idx in torch.randperm(800).split(50):
        opt.zero_grad()
        bce(mlp(pts[idx]), lab[idx]).backward()
        opt.step()
    with torch.no_grad():
        acc = ((mlp(pts[800:]) > 0).float() == lab[800:]).float().mean().item()
    print(epoch, "acc", round(acc, 3), "units that differ", len(mlp[0].w.detach().t().unique(dim=0)))
