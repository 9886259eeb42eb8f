# expect: exploding-gradients [run]
# about: a recurrent net with a weight of radius 1.15 and no clipping: now and then a long sequence comes and the gradient is thousands of times the usual, or more
# allow: learning-rate-too-high
# allow: no-validation
# allow: not-learning
# allow: initial-loss-off
# allow: non-finite-value
import torch
from torch import nn

torch.manual_seed(0)
g = torch.Generator().manual_seed(0)


class Accumulator(nn.Module):
    def __init__(self, hidden=8):
        super().__init__()
        self.inp = nn.Linear(1, hidden, bias=False)
        self.rec = nn.Parameter(1.15 * torch.linalg.qr(torch.randn(hidden, hidden))[0])
        self.out = nn.Linear(hidden, 1)

    def forward(self, x):
        h = x.new_zeros(x.size(0), self.rec.size(0))
        for t in range(x.size(1)):
            h = self.inp(x[:, t]) + h @ self.rec
        return self.out(h).squeeze(1)


def batch():
    steps = 60 if torch.rand(1, generator=g) < 0.08 else int(torch.randint(3, 8, (1,), generator=g))
    x = torch.randn(16, steps, 1, generator=g)
    return x, x.mean((1, 2))


net = Accumulator()
opt = torch.optim.Adam(net.parameters(), lr=1e-4)
norms = []
for step in range(200):
    x, y = batch()
    loss = nn.functional.mse_loss(net(x), y)
    opt.zero_grad()
    loss.backward()
    norms.append(torch.cat([p.grad.flatten() for p in net.parameters()]).norm().item())
    opt.step()
    if step % 50 == 49:
        recent = torch.tensor(norms[-50:])
        print(f"step {step + 1} gradient norm median {recent.median().item():.3g} largest {recent.max().item():.3g}")
