# expect: optimizer-recreated [run,source]
# about: a learner makes a new Adam in every update: each step is a first step, of size lr whatever the gradient
# allow: learning-rate-too-high
import torch
from sklearn.datasets import make_friedman2
from torch import nn


class Learner:
    def __init__(self):
        self.net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
        self.lr = 5e-3

    def update(self, x, y):
        opt = torch.optim.Adam(self.net.parameters(), lr=self.lr)
        loss = nn.functional.mse_loss(self.net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.item()


torch.manual_seed(0)
X, y = make_friedman2(900, noise=10.0, random_state=0)
X, y = torch.tensor(X).float(), torch.tensor(y).float()[:, None]
X = (X - X[:700].mean(0)) / X[:700].std(0)
y = (y - y[:700].mean()) / y[:700].std()
learner = Learner()
for epoch in range(10):
    for rows in torch.randperm(700).split(50):
        learner.update(X[rows], y[rows])
    with torch.no_grad():
        print(epoch, round(nn.functional.mse_loss(learner.net(X[700:]), y[700:]).item(), 5))
