# expect: nothing
# about: inverse PINN-like fit: raw coefficient tensors are in the optimizer beside the net; a fixed noise level needs grad only for a report at the end
import torch
from torch import nn

torch.manual_seed(0)
t = torch.linspace(0, 3, 60)[:, None]
obs = 2 * torch.exp(-0.7 * t) + 0.01 * torch.randn_like(t)
net = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))
k = torch.tensor(0.1, requires_grad=True)
opt = torch.optim.Adam([{"params": net.parameters()}, {"params": [k], "lr": 2e-2}], lr=1e-2)
start = torch.zeros(1, 1, requires_grad=True)
for it in range(150):
    x = t.clone().requires_grad_(True)
    u = net(x)
    du = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    loss = (u - obs).square().mean() + (du + k * u).square().mean() + (net(start) - 2).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 50 == 49:
        print(it, loss.item(), k.item())
