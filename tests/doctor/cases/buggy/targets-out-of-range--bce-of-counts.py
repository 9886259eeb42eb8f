# expect: targets-out-of-range [run]
# about: BCE-with-logits on wine classes 0, 1 and 2: class 2 is a target of 2, and the loss goes below zero without end
# allow: not-learning
# allow: learning-rate-too-high
# allow: regression-loss-on-classes
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, stratify=y, random_state=0)
m, s = a.mean(0), a.std(0)
a, b = torch.tensor((a - m) / s).float(), torch.tensor((b - m) / s).float()
ya, yb = torch.tensor(ya).float(), torch.tensor(yb).float()
net = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
criterion = nn.BCEWithLogitsLoss()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(10):
    for x, t in DataLoader(TensorDataset(a, ya), batch_size=19, shuffle=True):
        opt.zero_grad()
        criterion(net(x), t).backward()
        opt.step()
    with torch.no_grad():
        print(epoch, "val loss", round(criterion(net(b), yb).item(), 4))
