# expect: dead-units [run]
# about: one far too large first step (a rate of 3 for three steps, then 0.02) throws the convolution's units below zero for good
# allow: not-learning
# allow: learning-rate-too-high
# allow: input-ignored
# allow: parameters-without-gradient
# allow: exploding-gradients
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.SGD(net.parameters(), lr=3.0)
schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1.0 if step < 3 else 0.02 / 3.0)
for epoch in range(4):
    for a, b in DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True):
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
        schedule.step()
    with torch.no_grad():
        dead = [(net[:k](x[1400:]).flatten(1) == 0).all(0).float().mean().item() for k in (2, 5)]
        print(epoch, "share of dead units by layer", [round(v, 2) for v in dead], "acc", (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
