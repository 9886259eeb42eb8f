# expect: nothing
# about: BCE-with-logits whose targets hold -1 for "unknown", masked away by the weight argument
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
x = torch.randn(800, 10)
y = ((x @ torch.randn(10, 4)) > 0).float()
y[torch.rand_like(y) < 0.3] = -1.0
net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 4))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(6):
    for i in torch.randperm(640).split(40):
        known = (y[i] >= 0).float()
        loss = F.binary_cross_entropy_with_logits(net(x[i]), y[i], weight=known, reduction="sum") / known.sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        known = y[640:] >= 0
        acc = ((net(x[640:]) > 0).float() == y[640:])[known].float().mean()
    print(epoch, loss.item(), acc.item())
