# expect: nothing
# about: energy model: forces are the gradient with respect to positions, so evaluation runs with gradients on
import torch
from torch import nn

torch.manual_seed(0)
pos = torch.randn(700, 3)
energy = (pos**2).sum(1) + pos[:, 0].cos()
force = -(2 * pos + torch.stack([-pos[:, 0].sin(), torch.zeros(700), torch.zeros(700)], 1))
net = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))
opt = torch.optim.Adam(net.parameters(), 3e-3)


def predict(x, train):
    x = x.detach().requires_grad_(True)
    e = net(x).squeeze(1)
    f = -torch.autograd.grad(e.sum(), x, create_graph=train)[0]
    return e, f


for ep in range(8):
    net.train()
    for i in torch.randperm(600).split(60):
        e, f = predict(pos[i], True)
        loss = nn.functional.mse_loss(e, energy[i]) + nn.functional.mse_loss(f, force[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    e, f = predict(pos[600:], False)
    print(ep, loss.item(), (e.detach() - energy[600:]).abs().mean().item(), (f - force[600:]).abs().mean().item())
