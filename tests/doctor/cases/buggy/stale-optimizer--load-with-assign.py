# expect: stale-optimizer [run]
# about: load_state_dict(assign=True) after the optimizer was made puts new tensors in place of the parameters
# allow: parameters-not-optimized
# allow: missing-zero-grad
# allow: parameters-without-gradient
# allow: weights-do-not-move
# allow: not-learning
import copy
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(600, 6)
y = X[:, :1].abs() + X[:, 1:2]
pre = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
weights = copy.deepcopy(pre.state_dict())
model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
opt = torch.optim.Adam(model.parameters(), 5e-3)
model.load_state_dict(weights, assign=True)
for ep in range(8):
    for i in torch.randperm(500).split(50):
        opt.zero_grad()
        nn.functional.mse_loss(model(X[i]), y[i]).backward()
        opt.step()
    with torch.no_grad():
        print(ep, nn.functional.mse_loss(model(X[500:]), y[500:]).item())
