# expect: nothing
# about: several heads, each batch trains only the head it belongs to, so the others have no gradient in that step
import random

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.model_selection import train_test_split
from torch import nn

random.seed(0)
torch.manual_seed(0)
TASKS = {"iris": load_iris, "wine": load_wine, "cancer": load_breast_cancer}


class MultiHead(nn.Module):
    def __init__(self, dims, width=24):
        super().__init__()
        self.stems = nn.ModuleDict({k: nn.Linear(i, width) for k, (i, _) in dims.items()})
        self.trunk = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.heads = nn.ModuleDict({k: nn.Linear(width, o) for k, (_, o) in dims.items()})

    def forward(self, x, task):
        return self.heads[task](self.trunk(self.stems[task](x)))


data, dims = {}, {}
for name, load in TASKS.items():
    X, y = load(return_X_y=True)
    X, keep = np.unique(X, axis=0, return_index=True)  # iris holds one flower twice
    y = y[keep]
    Xt, Xv, yt, yv = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    m, s = Xt.mean(0), Xt.std(0)
    f = lambda A: torch.tensor((A - m) / s, dtype=torch.float32)
    data[name] = (f(Xt), torch.tensor(yt), f(Xv), torch.tensor(yv))
    dims[name] = (X.shape[1], int(y.max()) + 1)

net = MultiHead(dims)
optim = torch.optim.Adam(net.parameters(), lr=4e-3)
for epoch in range(12):
    net.train()
    plan = [(k, idx) for k, (Xt, *_) in data.items() for idx in torch.randperm(len(Xt)).split(35)]
    random.shuffle(plan)
    for task, idx in plan:
        Xt, yt = data[task][:2]
        loss = nn.functional.cross_entropy(net(Xt[idx], task), yt[idx])
        optim.zero_grad(set_to_none=True)
        loss.backward()
        optim.step()
    if epoch % 4 == 3:
        net.eval()
        with torch.no_grad():
            print(epoch, {k: round((net(Xv, k).argmax(1) == yv).float().mean().item(), 3) for k, (_, _, Xv, yv) in data.items()})
