# expect: exploding-gradients [run]
# about: one row in fifty has a sensor stuck at 5000 in standardised inputs: its batch has a gradient over a thousand times the usual, unclipped
# allow: learning-rate-too-high
# allow: inputs-not-scaled
# allow: initial-loss-off
# allow: not-learning
# allow: dead-units
# allow: no-validation
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
g = torch.Generator().manual_seed(0)
x = torch.randn(1600, 8, generator=g)
y = (x @ torch.randn(8, 1, generator=g)) / 3 + 0.1 * torch.randn(1600, 1, generator=g)
stuck = torch.rand(1600, generator=g) < 0.02
x[stuck, 3] = 5000.0
model = nn.Sequential(nn.Linear(8, 24), nn.LeakyReLU(), nn.Linear(24, 1))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
for epoch in range(1):
    norms = []
    for a, b in loader:
        opt.zero_grad()
        nn.functional.mse_loss(model(a), b).backward()
        norms.append(torch.stack([p.grad.norm() for p in model.parameters()]).norm().item())
        opt.step()
    n = torch.tensor(norms)
    print(f"median {n.median().item():.3g} largest {n.max().item():.3g}, over 1000 x median: {(n > 1000 * n.median()).sum().item()} of {len(n)}")
