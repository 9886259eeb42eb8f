# expect: overfitting [run]
# about: 40 noisy points of a line, a wide net, 400 full-batch steps: validation error climbs far above its best
# allow: last-weights-kept
import torch
from torch import nn

torch.manual_seed(0)
g = torch.Generator().manual_seed(0)


def draw(n):
    x = torch.randn(n, 8, generator=g)
    return x, x[:, :1] * 0.7 + torch.randn(n, 1, generator=g)


(x, y), (xv, yv) = draw(40), draw(400)
net = nn.Sequential(nn.Linear(8, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 1))
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
mse = nn.MSELoss()
for step in range(400):
    net.train()
    opt.zero_grad()
    loss = mse(net(x), y)
    loss.backward()
    opt.step()
    if step % 10 == 9:
        net.eval()
        with torch.no_grad():
            val = mse(net(xv), yv).item()
        if step % 50 == 49:
            print(f"step {step + 1} train {loss.item():.4f} val {val:.4f}")
