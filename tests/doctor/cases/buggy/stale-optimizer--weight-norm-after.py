# expect: stale-optimizer [run]
# accept: parameters-not-optimized
# about: weight_norm is put on the layers after the optimizer was made
# allow: missing-zero-grad
# allow: parameters-without-gradient
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from sklearn.datasets import load_digits

torch.manual_seed(0)
d = load_digits()
X, y = torch.tensor(d.images / 16).float()[:, None], torch.tensor(d.target)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
for m in (net[0], net[3]):
    weight_norm(m)
for ep in range(3):
    for i in torch.randperm(1400).split(50):
        loss = nn.functional.cross_entropy(net(X[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(ep, (net(X[1400:]).argmax(1) == y[1400:]).float().mean().item())
