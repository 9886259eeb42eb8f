# expect: training-on-validation-data [run,source]
# about: the training loader is built over train + validation joined, and validation reads the same held-out set
# allow: leak-between-splits
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
p = torch.randperm(len(x))
train_set = TensorDataset(x[p[:1200]], y[p[:1200]])
val_set = TensorDataset(x[p[1200:]], y[p[1200:]])
train_loader = DataLoader(ConcatDataset([train_set, val_set]), batch_size=60, shuffle=True)
val_loader = DataLoader(val_set, batch_size=200)

net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(6):
    net.train()
    for a, b in train_loader:
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
    net.eval()
    ok = 0
    with torch.no_grad():
        for a, b in val_loader:
            ok += (net(a).argmax(1) == b).sum().item()
    print(f"epoch {epoch} validation accuracy {ok / len(val_set):.4f}")
