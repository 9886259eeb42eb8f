# expect: nothing
# about: stochastic gradient Langevin dynamics: noise is put on gradients between backward and step, samples of weights are collected as copies
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, test_size=0.4, stratify=y, random_state=2)
mu, sd = a.mean(0), a.std(0)
a, b = torch.tensor((a - mu) / sd).float(), torch.tensor((b - mu) / sd).float()
ya, yb = torch.tensor(ya), torch.tensor(yb)
net = nn.Sequential(nn.Linear(13, 12), nn.Tanh(), nn.Linear(12, 3))
lr, n = 2e-2, len(a)
opt = torch.optim.SGD(net.parameters(), lr=lr)
ensemble = []
for step in range(1, 301):
    idx = torch.randint(0, n, (20,))
    opt.zero_grad()
    prior = sum(p.square().sum() for p in net.parameters()) / (2 * n)
    loss = nn.functional.cross_entropy(net(a[idx]), ya[idx]) + prior
    loss.backward()
    for p in net.parameters():
        p.grad.add_(torch.randn_like(p), alpha=(2 / (lr * n)) ** 0.5 * 0.3)
    opt.step()
    if step > 150 and step % 25 == 0:
        with torch.no_grad():
            ensemble.append(net(b).softmax(1))
        mean = torch.stack(ensemble).mean(0)
        print(step, "members", len(ensemble), "accuracy", (mean.argmax(1) == yb).float().mean().item())
