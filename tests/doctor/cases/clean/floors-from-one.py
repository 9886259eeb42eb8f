# expect: nothing
# about: floors 1 … 4 by L1, with the share of exact hits printed as accuracy; whole numbers from one are an amount
import torch
from torch import nn

torch.manual_seed(0)
x = torch.rand(800, 4)
floors = (x.sum(1) + torch.rand(800)).round().clamp(1, 4)
net = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1), nn.Flatten(0))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(6):
    for i in torch.randperm(640).split(40):
        loss = nn.functional.l1_loss(net(x[i]), floors[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        accuracy = (net(x[640:]).round() == floors[640:]).float().mean()
    print(epoch, loss.item(), accuracy.item())
