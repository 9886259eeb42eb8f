# expect: nothing
# about: OpenAI-ES: no backward at all; p.grad is written by hand from perturbations, then Adam steps
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(200, 3)
y = (X[:, 0] - 2 * X[:, 1]).unsqueeze(1)
net = nn.Linear(3, 1)
opt = torch.optim.Adam(net.parameters(), lr=5e-2)


def fitness():
    with torch.no_grad():
        return -nn.functional.mse_loss(net(X[:150]), y[:150]).item()


for gen in range(80):
    base = [p.data.clone() for p in net.parameters()]
    grads = [torch.zeros_like(p) for p in base]
    for _ in range(12):
        eps = [torch.randn_like(p) for p in base]
        for sign in (1, -1):
            for p, b, e in zip(net.parameters(), base, eps):
                p.data = b + sign * 0.05 * e
            f = fitness()
            for g, e in zip(grads, eps):
                g -= sign * f * e / (2 * 12 * 0.05)
    for p, b, g in zip(net.parameters(), base, grads):
        p.data = b
        p.grad = g
    opt.step()
    if gen % 20 == 0:
        print(gen, fitness())
