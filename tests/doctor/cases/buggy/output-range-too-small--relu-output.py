# expect: output-range-too-small [run,source]
# about: standardised targets, half of them negative, but the network ends in a ReLU
# allow: dead-units
# allow: not-learning
# allow: input-ignored
import torch
from sklearn.datasets import make_regression
from torch import nn

torch.manual_seed(0)
X, y = make_regression(900, 8, noise=5.0, random_state=1)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32).view(-1, 1)
mean, std = y[:700].mean(), y[:700].std()
y = (y - mean) / std


def build(sizes):
    layers = []
    for i, o in zip(sizes[:-1], sizes[1:]):
        layers.append(nn.Linear(i, o))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


net = build([8, 32, 16, 1])
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
mse = nn.MSELoss()
for epoch in range(10):
    for idx in torch.randperm(700).split(50):
        opt.zero_grad()
        mse(net(X[idx]), y[idx]).backward()
        opt.step()
    with torch.no_grad():
        out = net(X[700:])
    print(f"epoch {epoch} val mse {mse(out, y[700:]).item():.3f}, smallest output {out.min().item():.2f}, smallest target {y[700:].min().item():.2f}")
