# expect: learning-rate-too-low [run]
# about: SGD at 1e-7, taken from a config for summed losses, on a mean loss: the net stands still
# allow: not-learning
# allow: underfitting
from dataclasses import dataclass

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class Config:
    lr: float = 1e-7
    weight_decay: float = 0.0
    batch_size: int = 16
    epochs: int = 8


cfg = Config()
torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, stratify=y, random_state=0)
m, s = a.mean(0), a.std(0)
t = lambda v: torch.tensor((v - m) / s).float()
loader = DataLoader(TensorDataset(t(a), torch.tensor(ya).float()), cfg.batch_size, shuffle=True)
net = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))
opt = torch.optim.SGD(net.parameters(), lr=cfg.lr, momentum=0.9)
bce = nn.BCEWithLogitsLoss()
for epoch in range(cfg.epochs):
    for x, target in loader:
        opt.zero_grad()
        bce(net(x), target).backward()
        opt.step()
    with torch.no_grad():
        print(epoch, "val", bce(net(t(b)), torch.tensor(yb).float()).item())
