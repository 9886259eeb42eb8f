# expect: nothing
# about: physics-informed net: derivatives by autograd.grad with create_graph, collocation points drawn anew, no targets but zero, no data at all
# allow: no-validation
import torch
from torch import nn

torch.manual_seed(123)
d, w0 = 0.5, 3.0  # damped oscillator u'' + 2 d u' + w0^2 u = 0, u(0)=1, u'(0)=0
w = (w0**2 - d**2) ** 0.5


def exact(t):
    return torch.exp(-d * t) * (torch.cos(w * t) + d / w * torch.sin(w * t))


class FCN(nn.Module):
    def __init__(self, n_hidden=24, n_layers=2):
        super().__init__()
        act = nn.Tanh
        self.fcs = nn.Sequential(nn.Linear(1, n_hidden), act())
        self.fch = nn.Sequential(*[nn.Sequential(nn.Linear(n_hidden, n_hidden), act()) for _ in range(n_layers - 1)])
        self.fce = nn.Linear(n_hidden, 1)

    def forward(self, t):
        return self.fce(self.fch(self.fcs(t)))


pinn = FCN()
optimiser = torch.optim.Adam(pinn.parameters(), lr=4e-3)
t0 = torch.zeros(1, 1, requires_grad=True)
t_test = torch.linspace(0, 1.5, 100).view(-1, 1)
for i in range(701):
    optimiser.zero_grad()
    u0 = pinn(t0)
    du0 = torch.autograd.grad(u0, t0, torch.ones_like(u0), create_graph=True)[0]
    boundary = (u0.squeeze() - 1) ** 2 + 0.1 * du0.squeeze() ** 2
    t = (torch.rand(40, 1) * 1.5).requires_grad_(True)
    u = pinn(t)
    du = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]
    ddu = torch.autograd.grad(du, t, torch.ones_like(du), create_graph=True)[0]
    physics = torch.mean((ddu + 2 * d * du + w0**2 * u) ** 2)
    loss = boundary + 1e-2 * physics
    loss.backward()
    optimiser.step()
    if i % 175 == 0:
        with torch.no_grad():
            print(i, f"loss {loss.item():.5f} error to the solution {(pinn(t_test) - exact(t_test)).abs().mean().item():.4f}")
