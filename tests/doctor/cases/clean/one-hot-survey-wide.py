# expect: nothing
# about: twelve questions one-hot encoded to 60 sparse 0/1 columns, in loaders: answers repeat across a right split
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

rng = np.random.default_rng(3)
answers = np.stack([rng.choice(5, 1600, p=[0.75, 0.15, 0.06, 0.03, 0.01]) for _ in range(12)], 1)
X = torch.tensor(np.eye(5, dtype=np.float32)[answers].reshape(1600, 60))
score = torch.tensor((answers[:, :6].sum(1) - answers[:, 6:].sum(1) + rng.normal(0, 0.3, 1600)).astype(np.float32))
y = (score > 0).long()
train, val = random_split(TensorDataset(X, y), [1200, 400], generator=torch.Generator().manual_seed(0))
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(60, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(5):
    net.train()
    for a, b in DataLoader(train, 40, shuffle=True):
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(epoch, sum((net(a).argmax(1) == b).sum().item() for a, b in DataLoader(val, 100)) / 400)
