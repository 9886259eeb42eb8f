# expect: nothing
# about: active learning: the pool is scored without grad, the most uncertain samples are labelled and join the training set; test set apart
import torch
from torch import nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
order = torch.randperm(len(X))
test, pool, labelled = order[:397], order[397:1597], order[1597:]
net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 10))
for rnd in range(4):
    opt = torch.optim.Adam(net.parameters(), 5e-3)  # restart for the larger set
    net.train()
    for ep in range(5):
        for i in labelled[torch.randperm(len(labelled))].split(40):
            opt.zero_grad()
            nn.functional.cross_entropy(net(X[i]), y[i]).backward()
            opt.step()
    net.eval()
    with torch.no_grad():
        p = net(X[pool]).softmax(1)
        entropy = -(p * p.clamp_min(1e-9).log()).sum(1)
        acc = (net(X[test]).argmax(1) == y[test]).float().mean().item()
    take = entropy.topk(80).indices
    labelled = torch.cat([labelled, pool[take]])
    keep = torch.ones(len(pool), dtype=torch.bool)
    keep[take] = False
    pool = pool[keep]
    print(rnd, len(labelled), acc)
