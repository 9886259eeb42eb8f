# expect: slow-settings [run]
# about: rows of an in-memory tensor go through a map-style dataset and the default collate, one at a time, in batches of 500
# allow: loader-bound
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "y": self.y[i]}


torch.manual_seed(0)
x = torch.randn(26000, 12)
y = (x[:, :1].sin() + 0.5 * x[:, 1:2] * x[:, 2:3]) + 0.1 * torch.randn(26000, 1)
train, val = DataLoader(Rows(x[:25000], y[:25000]), batch_size=500, shuffle=True), DataLoader(Rows(x[25000:], y[25000:]), batch_size=1000)
net = nn.Sequential(nn.Linear(12, 48), nn.SiLU(), nn.Linear(48, 1))
opt = torch.optim.AdamW(net.parameters(), lr=5e-3)
for epoch in range(3):
    net.train()
    for batch in train:
        opt.zero_grad()
        nn.functional.mse_loss(net(batch["x"]), batch["y"]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(epoch, [round(nn.functional.mse_loss(net(b["x"]), b["y"]).item(), 4) for b in val])
