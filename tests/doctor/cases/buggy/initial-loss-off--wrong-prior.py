# expect: initial-loss-off [run]
# about: an output bias from a wrong prior (log 0.001 on all classes but the first): the first loss is near 6 where a guess has 2.3
# allow: no-validation
import math

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
with torch.no_grad():
    net[-1].bias.fill_(math.log(0.001))
    net[-1].bias[0] = 0.0
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
losses = []
for epoch in range(4):
    for a, b in DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(a), b)
        loss.backward()
        opt.step()
        losses.append(loss.item())
    with torch.no_grad():
        print(epoch, "first", round(losses[0], 2), "val", nn.functional.cross_entropy(net(x[1400:]), y[1400:]).item())
