# expect: degenerate-targets [run]
# about: a normalised regression target is cast to int before it becomes a float: it is 0 for every sample
# allow: initial-loss-off
# allow: input-ignored
# allow: loss-is-constant
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Diabetes(Dataset):
    def __init__(self, rows, top):
        raw = load_diabetes(scaled=False)
        mean, std = raw.data[top].mean(0), raw.data[top].std(0)
        self.x = ((raw.data - mean) / std)[rows].astype(np.float32)
        self.y = (raw.target / 350.0)[rows].astype(int)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], np.float32(self.y[i])


torch.manual_seed(0)
order = np.random.RandomState(0).permutation(442)
train, val = Diabetes(order[:340], order[:340]), Diabetes(order[340:], order[:340])
loader, val_loader = DataLoader(train, 34, shuffle=True), DataLoader(val, 102)
net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(8):
    net.train()
    for x, t in loader:
        opt.zero_grad()
        nn.functional.mse_loss(net(x), t).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(epoch, [nn.functional.mse_loss(net(x), t).item() for x, t in val_loader])
