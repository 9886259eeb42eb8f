# expect: missing-zero-grad [run]
# about: LBFGS whose closure does not clear gradients
# allow: no-validation
# allow: learning-rate-too-high
# allow: non-finite-value
import torch
from torch import nn
from sklearn.datasets import make_moons

X, y = make_moons(300, noise=0.15, random_state=0)
X, y = torch.tensor(X).float(), torch.tensor(y).float()
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
opt = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=5)


def closure():
    loss = nn.functional.binary_cross_entropy_with_logits(net(X), y)
    loss.backward()
    return loss


for i in range(20):
    loss = opt.step(closure)
    print(i, loss.item())
