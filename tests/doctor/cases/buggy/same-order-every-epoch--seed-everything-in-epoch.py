# expect: same-order-every-epoch [run,source]
# about: set_seed(42) at the head of train_one_epoch "for reproducibility"; permutation made by randperm, no loader
import random

import numpy as np
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from sklearn.model_selection import train_test_split
from torch import nn


def set_seed(seed: int = 42) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


X, y = load_wine(return_X_y=True)
Xtr, Xva, ytr, yva = train_test_split(X, y, test_size=0.2, random_state=0)
sc = StandardScaler()
Xtr = torch.tensor(sc.fit_transform(Xtr), dtype=torch.float32)
Xva = torch.tensor(sc.transform(Xva), dtype=torch.float32)
ytr, yva = torch.tensor(ytr), torch.tensor(yva)
set_seed()
model = nn.Sequential(nn.Linear(13, 20), nn.Tanh(), nn.Dropout(0.2), nn.Linear(20, 3))
opt = torch.optim.Adam(model.parameters(), lr=5e-3)


def train_one_epoch():
    set_seed(42)
    model.train()
    order = torch.randperm(len(Xtr))
    for i in range(0, len(order), 16):
        b = order[i : i + 16]
        opt.zero_grad()
        nn.functional.cross_entropy(model(Xtr[b]), ytr[b]).backward()
        opt.step()


for epoch in range(12):
    train_one_epoch()
    model.eval()
    with torch.no_grad():
        print(epoch, (model(Xva).argmax(1) == yva).float().mean().item())
