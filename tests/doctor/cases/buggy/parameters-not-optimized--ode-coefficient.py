# expect: parameters-not-optimized [run]
# about: inverse problem: the unknown coefficient is a raw tensor with requires_grad, and only net.parameters() are optimised
# allow: missing-zero-grad
# allow: no-validation
import torch
from torch import nn

torch.manual_seed(0)
t = torch.linspace(0, 3, 60)[:, None]
obs = 2 * torch.exp(-0.7 * t) + 0.01 * torch.randn_like(t)
net = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))
k = torch.tensor([0.1], requires_grad=True)
opt = torch.optim.Adam(net.parameters(), lr=1e-2)
for it in range(120):
    x = t.clone().requires_grad_(True)
    u = net(x)
    du = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    loss = (u - obs).square().mean() + (du + k * u).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 40 == 39:
        print(it, loss.item(), k.item())
