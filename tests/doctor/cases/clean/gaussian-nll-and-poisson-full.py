# expect: nothing
# about: hand-written Poisson likelihood with the log-factorial of the target (constant), learnable log-variance in the optimizer
import torch
from torch import nn

torch.manual_seed(0)
X = torch.rand(900, 4)
rate = (1 + X[:, 0] * 2 - X[:, 1]).exp()
counts = torch.poisson(rate)
net = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 1))
opt = torch.optim.Adam(net.parameters(), 1e-2)
for ep in range(8):
    for i in torch.randperm(700).split(70):
        log_rate = net(X[i]).squeeze(1)
        nll = log_rate.exp() - counts[i] * log_rate + torch.lgamma(counts[i] + 1)
        loss = nll.mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        lr = net(X[700:]).squeeze(1)
        print(ep, loss.item(), (lr.exp() - counts[700:] * lr).mean().item(), (lr.exp() - rate[700:]).abs().mean().item())
