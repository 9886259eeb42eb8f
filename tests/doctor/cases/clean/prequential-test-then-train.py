# expect: nothing
# about: online learning: each new batch is first predicted (test), then trained on (test-then-train, prequential accuracy)
import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
drift = torch.randn(6)
seen = right = 0
for t in range(120):
    drift = drift + 0.02 * torch.randn(6)
    x = torch.randn(32, 6)
    y = (x @ drift > 0).long()
    net.eval()
    with torch.no_grad():
        right = 0.95 * right + 0.05 * (net(x).argmax(1) == y).float().mean().item()
    net.train()
    loss = nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if t % 30 == 29:
        print(t, right)
