# expect: nothing
# about: curriculum: samples sorted from easy to hard and read in that order in the first epochs, then shuffled
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(1200, 12)
score = x[:, :4].sum(1)
y = (score > 0).float()
easy_first = score[:1000].abs().argsort(descending=True)
net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 1))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(5):
    order = easy_first[: 400 + 200 * epoch] if epoch < 3 else torch.randperm(1000)
    for idx in order.split(40):
        loss = nn.functional.binary_cross_entropy_with_logits(net(x[idx]).squeeze(1), y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, loss.item(), ((net(x[1000:]).squeeze(1) > 0).float() == y[1000:]).float().mean().item())
