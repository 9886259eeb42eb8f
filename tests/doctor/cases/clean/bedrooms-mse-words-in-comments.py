# expect: nothing
# about: number of bedrooms (0 … 5, even shares) by MSE; comments and docstrings speak of classes and accuracy
"""Rooms are a count, not classes; we want a correct mean, accuracy is not what counts here. classification is elsewhere."""
import torch
from torch import nn

torch.manual_seed(0)
area = torch.rand(900, 3)
# classes would be wrong here: accuracy of rounding means little
bedrooms = (area.mean(1) * 10 - 2).round().clamp(0, 5)
bedrooms = torch.where(torch.rand(900) < 0.5, torch.randint(0, 6, (900,)).float(), bedrooms)
net = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 1), nn.Flatten(0))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(6):
    for i in torch.randperm(720).split(48):
        loss = nn.functional.mse_loss(net(area[i]), bedrooms[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, loss.item(), nn.functional.mse_loss(net(area[720:]), bedrooms[720:]).item())
