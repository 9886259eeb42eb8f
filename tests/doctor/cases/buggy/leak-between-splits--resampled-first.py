# expect: leak-between-splits [run]
# about: rows are drawn with replacement to balance classes and then split: copies of one row stand on both sides
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.default_rng(0)
torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
balanced = np.concatenate([rng.choice(np.where(y == c)[0], 400) for c in (0, 1)])
rng.shuffle(balanced)
X, y = X[balanced], y[balanced]
cut = int(0.75 * len(X))
mean, std = X[:cut].mean(0), X[:cut].std(0)
X = torch.tensor((X - mean) / std, dtype=torch.float32)
y = torch.tensor(y)
train = DataLoader(TensorDataset(X[:cut], y[:cut]), batch_size=40, shuffle=True)
val = DataLoader(TensorDataset(X[cut:], y[cut:]), batch_size=100)
net = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(6):
    net.train()
    for a, b in train:
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(epoch, sum((net(a).argmax(1) == b).sum().item() for a, b in val) / (len(X) - cut))
