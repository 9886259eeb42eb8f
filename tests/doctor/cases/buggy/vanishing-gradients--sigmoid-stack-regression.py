# expect: vanishing-gradients [run]
# about: ten sigmoid layers under a squared error: what reaches the first layer is a millionth of what the last one gets
# allow: not-learning
# allow: input-ignored
# allow: learning-rate-too-low
import torch
from sklearn.datasets import make_friedman1
from torch import nn

torch.manual_seed(0)
X, y = make_friedman1(1000, noise=0.5, random_state=0)
X, y = torch.tensor((X - 0.5) * 3.4).float(), torch.tensor(y).float()[:, None]
y = (y - y[:800].mean()) / y[:800].std()
blocks = []
for i in range(10):
    blocks.append(nn.Linear(10 if i == 0 else 24, 24))
    blocks.append(nn.Sigmoid())
net = nn.Sequential(*blocks, nn.Linear(24, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
for epoch in range(8):
    for i in torch.randperm(800).split(40):
        loss = nn.functional.mse_loss(net(X[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        val = nn.functional.mse_loss(net(X[800:]), y[800:]).item()
    print(epoch, "val", round(val, 4), "first", f"{net[0].weight.grad.abs().mean().item():.1e}", "last", f"{net[-1].weight.grad.abs().mean().item():.1e}")
