# expect: best-weights-not-copied [run]
# about: a snapshot ensemble that appends model.state_dict() five times: all members are the last weights
import torch
from torch import nn
from sklearn.datasets import load_wine

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
p = torch.randperm(178)
X, y = torch.tensor(X).float()[p], torch.tensor(y)[p]
X = (X - X[:130].mean(0)) / X[:130].std(0)
net = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
opt = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
sched = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=3)
snapshots = []
for ep in range(15):
    for i in torch.randperm(130).split(26):
        opt.zero_grad()
        nn.functional.cross_entropy(net(X[i]), y[i]).backward()
        opt.step()
    sched.step()
    if ep % 3 == 2:
        snapshots.append(net.state_dict())
probs = []
member = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
for s in snapshots:
    member.load_state_dict(s)
    with torch.no_grad():
        probs.append(member(X[130:]).softmax(1))
print((torch.stack(probs).mean(0).argmax(1) == y[130:]).float().mean().item())
