# expect: nothing
# about: pinball loss for three quantiles: target (N,1) broadcasts against (N,3) on purpose
import torch
from torch import nn


class Pinball(nn.Module):
    def __init__(self, quantiles):
        super().__init__()
        self.register_buffer("q", torch.tensor(quantiles))

    def forward(self, pred, target):
        # target (N,1) against one column a quantile
        err = target - pred
        return torch.maximum(self.q * err, (self.q - 1) * err).sum(1).mean()


def draw(n, g):
    x = torch.rand(n, 1, generator=g) * 4 - 2
    y = torch.sin(2 * x) + (0.2 + 0.3 * x.abs()) * torch.randn(n, 1, generator=g)
    return x, y


torch.manual_seed(0)
g = torch.Generator().manual_seed(0)
(x, y), (xv, yv) = draw(1500, g), draw(500, g)
model = nn.Sequential(nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 3))
pinball = Pinball([0.1, 0.5, 0.9])
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
for epoch in range(12):
    for idx in torch.randperm(len(x)).split(75):
        opt.zero_grad()
        pinball(model(x[idx]), y[idx]).backward()
        opt.step()
    sched.step()
    if epoch % 3 == 2:
        with torch.no_grad():
            out = model(xv)
            cover = (yv <= out).float().mean(0).tolist()
        print(f"epoch {epoch} val {pinball(out, yv).item():.4f} shares below", [round(c, 3) for c in cover])
