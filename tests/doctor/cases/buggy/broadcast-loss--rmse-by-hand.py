# expect: broadcast-loss [run]
# about: hand-written RMSE: torch.sqrt(torch.mean((y - y_hat) ** 2)) with y_hat (N, 1) and y (N,)
# allow: input-ignored
# allow: not-learning
import math

import torch
import torch.nn as nn

torch.manual_seed(0)
x = torch.linspace(-math.pi, math.pi, 400).unsqueeze(1)
y = torch.sin(x).squeeze() + 0.05 * torch.randn(400)


def rmse(y_hat, y):
    return torch.sqrt(torch.mean((y - y_hat) ** 2))


net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
optimiser = torch.optim.Adam(net.parameters(), lr=0.01)

for epoch in range(120):
    optimiser.zero_grad()
    y_hat = net(x)
    loss = rmse(y_hat, y)
    loss.backward()
    optimiser.step()
    if epoch % 30 == 0:
        print(f"Epoch {epoch}: RMSE = {loss.item():.4f}")
