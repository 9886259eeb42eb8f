# expect: not-learning [run]
# about: the target is a column of random row numbers, read by the wrong index: the loss stays at the target's variance
# allow: underfitting
# allow: input-ignored
# allow: initial-loss-off
import numpy as np
import torch
from sklearn.datasets import make_friedman1
from torch import nn

rng = np.random.default_rng(0)
torch.manual_seed(0)
features, response = make_friedman1(1500, n_features=6, noise=0.2, random_state=0)
table = np.column_stack([features, response, rng.permutation(1500)])  # x1..x6, y, row id
X = torch.tensor((table[:, :6] - 0.5) * 3.4, dtype=torch.float32)
y = torch.tensor(table[:, -1:], dtype=torch.float32)  # meant: column 6
y = (y - y[:1200].mean()) / y[:1200].std()
net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.02)
for epoch in range(6):
    net.train()
    running = 0.0
    for i in torch.randperm(1200).split(40):
        loss = nn.functional.mse_loss(net(X[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        running += loss.item() * len(i) / 1200
    net.eval()
    with torch.no_grad():
        print(epoch, "train", round(running, 4), "val", round(nn.functional.mse_loss(net(X[1200:]), y[1200:]).item(), 4))
