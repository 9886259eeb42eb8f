# expect: scaler-misused [run]
# about: scaler.scale(loss).backward() then optimizer.step(): gradients are 2**16 too large; update() called
# exits: 1
# allow: learning-rate-too-high
# allow: non-finite-value
# allow: not-learning
# allow: exploding-gradients
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(500, 10)
y = (X[:, 0] > X[:, 1]).long()
net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler("cpu")
for ep in range(8):
    for i in torch.randperm(400).split(40):
        opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(net(X[i]), y[i])
        scaler.scale(loss).backward()
        opt.step()
        scaler.update()
    with torch.no_grad():
        print(ep, (net(X[400:]).argmax(1) == y[400:]).float().mean().item())
