# expect: nothing
# about: Deep SVDD: one class only, the target is a constant centre; no biases; scores by distance
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16, dtype=torch.float32), d.target
normal, odd = x[y == 1], x[y == 8]
train, held = normal[:140], normal[140:]
net = nn.Sequential(nn.Linear(64, 32, bias=False), nn.LeakyReLU(0.1), nn.Linear(32, 8, bias=False))
with torch.no_grad():
    centre = net(train).mean(0)
opt = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-5)
for epoch in range(20):
    for i in torch.randperm(140).split(28):
        loss = ((net(train[i]) - centre) ** 2).sum(1).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        a, b = (((net(v) - centre) ** 2).sum(1).median().item() for v in (held, odd))
    if epoch % 5 == 4:
        print(epoch, loss.item(), "normal", a, "odd", b)
