# expect: weights-do-not-move [run]
# accept: loss-is-constant
# accept: not-learning
# accept: loss-term-without-model
# about: the loss is multiplied by a ramp epoch // 10 that is 0 for all ten epochs
import torch
from sklearn.datasets import load_wine
from torch import nn

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
perm = torch.randperm(178)
X, y = torch.tensor(X, dtype=torch.float32)[perm], torch.tensor(y)[perm]
X = (X - X[:140].mean(0)) / X[:140].std(0)
net = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
opt = torch.optim.SGD(net.parameters(), lr=0.05)
for epoch in range(10):
    ramp = epoch // 10
    for i in torch.randperm(140).split(20):
        loss = ramp * nn.functional.cross_entropy(net(X[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item())
