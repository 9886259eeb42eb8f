# expect: saturated-activations [run]
# about: an own recurrent cell whose tanh state is driven by weights ten times too wide: the state sits at -1 and 1
# allow: vanishing-gradients
# allow: exploding-gradients
# allow: initial-loss-off
# allow: learning-rate-too-high
import torch
from sklearn.datasets import load_digits
from torch import nn


class Cell(nn.Module):
    def __init__(self, i, h):
        super().__init__()
        self.x2h, self.h2h = nn.Linear(i, h), nn.Linear(h, h)
        self.act = nn.Tanh()
        nn.init.uniform_(self.x2h.weight, -8, 8)
        nn.init.uniform_(self.h2h.weight, -2, 2)

    def forward(self, x, h):
        return self.act(self.x2h(x) + self.h2h(h))


class Net(nn.Module):
    def __init__(self, hidden=40):
        super().__init__()
        self.cell, self.fc, self.hidden = Cell(8, hidden), nn.Linear(hidden, 10), hidden

    def forward(self, x):
        h = x.new_zeros(len(x), self.hidden)
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
        self.last = h.detach()
        return self.fc(h)


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
net = Net()
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(4):
    for i in torch.randperm(1400).split(50):
        opt.zero_grad()
        nn.functional.cross_entropy(net(x[i]), y[i]).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
    with torch.no_grad():
        acc = (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    print(epoch, round(acc, 3), "at the ends", (net.last.abs() > 0.97).float().mean().item())
