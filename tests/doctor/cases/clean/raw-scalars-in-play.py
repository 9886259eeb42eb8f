# expect: nothing
# about: raw tensors that need a gradient and are not optimised on purpose: a zero to begin sums with, a sensitivity that is only reported
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(700, 5)
y = X[:, :1] - X[:, 1:2] ** 2
net = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 1))
opt = torch.optim.Adam(net.parameters(), 5e-3)
for ep in range(6):
    for i in torch.randperm(600).split(60):
        loss = torch.tensor(0.0, requires_grad=True)
        for part in i.split(20):
            loss = loss + nn.functional.mse_loss(net(X[part]), y[part]) / 3
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(ep, nn.functional.mse_loss(net(X[600:]), y[600:]).item())
shift = torch.zeros(5, requires_grad=True)
net(X[600:] + shift).mean().backward()
print("sensitivity", shift.grad.tolist())
