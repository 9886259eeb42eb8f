# expect: nothing
# about: SAM by hand: ascend, clear, second backward at the perturbed point, descend
import torch
from torch import nn
from sklearn.datasets import make_moons

X, y = make_moons(800, noise=0.2, random_state=0)
X, y = torch.tensor(X).float(), torch.tensor(y)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
crit = nn.CrossEntropyLoss()
for ep in range(10):
    for i in torch.randperm(600).split(60):
        loss = crit(net(X[i]), y[i])
        loss.backward()
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in net.parameters()]).norm() + 1e-12
            eps = [0.05 * p.grad / norm for p in net.parameters()]
            for p, e in zip(net.parameters(), eps):
                p.add_(e)
        opt.zero_grad()
        crit(net(X[i]), y[i]).backward()
        with torch.no_grad():
            for p, e in zip(net.parameters(), eps):
                p.sub_(e)
        opt.step()
        opt.zero_grad()
    with torch.no_grad():
        print(ep, (net(X[600:]).argmax(1) == y[600:]).float().mean().item())
