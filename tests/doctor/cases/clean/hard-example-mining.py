# expect: nothing
# about: each epoch scores the whole training set without grad and trains on its hardest half; validation apart
import torch
from torch import nn
from sklearn.datasets import load_breast_cancer

torch.manual_seed(0)
d = load_breast_cancer()
X, y = torch.tensor(d.data).float(), torch.tensor(d.target)
p = torch.randperm(len(X))
X, y = X[p], y[p]
X = (X - X[:430].mean(0)) / X[:430].std(0)
net = nn.Sequential(nn.Linear(30, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 2))
opt = torch.optim.Adam(net.parameters(), 3e-3)
for ep in range(8):
    net.eval()
    with torch.no_grad():
        scores = nn.functional.cross_entropy(net(X[:430]), y[:430], reduction="none")
    hard = scores.topk(240).indices
    net.train()
    for i in hard[torch.randperm(240)].split(24):
        opt.zero_grad()
        nn.functional.cross_entropy(net(X[i]), y[i]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(ep, (net(X[430:]).argmax(1) == y[430:]).float().mean().item())
