# expect: nothing
# about: constrained learning: multiplier parameter ascends (maximize=True) on the same backward; clamp in place
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(700, 6)
y = (X[:, 0] + 0.5 * X[:, 1] > 0).float()
net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
lam = nn.Parameter(torch.zeros(()))
opt = torch.optim.Adam(net.parameters(), 5e-3)
dual = torch.optim.SGD([lam], lr=0.05, maximize=True)
for ep in range(8):
    for i in torch.randperm(600).split(60):
        out = net(X[i])
        loss = nn.functional.binary_cross_entropy_with_logits(out, y[i]) + lam * (out.sigmoid().mean() - 0.4)
        opt.zero_grad()
        dual.zero_grad()
        loss.backward()
        opt.step()
        dual.step()
        with torch.no_grad():
            lam.clamp_(min=0)
    with torch.no_grad():
        print(ep, lam.item(), ((net(X[600:]) > 0) == (y[600:] > 0)).float().mean().item())
