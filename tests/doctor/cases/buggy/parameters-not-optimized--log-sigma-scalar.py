# expect: parameters-not-optimized [run]
# about: uncertainty weighting: log-variances are raw tensors that nobody optimises
# allow: missing-zero-grad
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(800, 6)
ya, yb = X[:, :1] * 3, X[:, 1:2] ** 2
trunk = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
log_vars = torch.zeros(2, requires_grad=True)
opt = torch.optim.Adam(trunk.parameters(), 3e-3)
for ep in range(8):
    for i in torch.randperm(640).split(64):
        out = trunk(X[i])
        la = nn.functional.mse_loss(out[:, :1], ya[i])
        lb = nn.functional.mse_loss(out[:, 1:], yb[i])
        loss = (torch.exp(-log_vars) * torch.stack([la, lb]) + log_vars).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(ep, la.item(), lb.item(), nn.functional.mse_loss(trunk(X[640:])[:, :1], ya[640:]).item())
