# expect: broadcast-loss [run,source]
# about: targets come from a table column as (N,), the model gives (N,1): their squared difference is an (N,N) matrix
# allow: input-ignored
# allow: not-learning
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Table(Dataset):
    def __init__(self, rows, fit_rows):
        raw = load_diabetes(scaled=False)
        f, t = torch.tensor(raw.data).float(), torch.tensor(raw.target).float()
        self.x = ((f - f[fit_rows].mean(0)) / f[fit_rows].std(0))[rows]
        self.y = ((t - t[fit_rows].mean()) / t[fit_rows].std())[rows]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return {"features": self.x[i], "target": self.y[i]}


torch.manual_seed(0)
perm = torch.randperm(442)
train, val = Table(perm[:350], perm[:350]), Table(perm[350:], perm[:350])
loader = DataLoader(train, batch_size=35, shuffle=True)
net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))
opt = torch.optim.RMSprop(net.parameters(), lr=3e-3)
for epoch in range(12):
    for batch in loader:
        out = net(batch["features"])
        loss = ((out - batch["target"]) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        r2 = 1 - ((net(val.x).squeeze(1) - val.y) ** 2).mean() / val.y.var()
    print(epoch, "val R2", round(r2.item(), 3))
