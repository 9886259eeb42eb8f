# expect: nothing
# about: mixup with soft targets and label smoothing: training loss never gets near zero and training accuracy lies below validation
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

rng = np.random.default_rng(0)
torch.manual_seed(0)


def mixup(x, y, classes=10, alpha=0.4):
    lam = float(rng.beta(alpha, alpha))
    perm = torch.randperm(len(x))
    y = F.one_hot(y, classes).float()
    return lam * x + (1 - lam) * x[perm], lam * y + (1 - lam) * y[perm]


d = load_digits()
ds = TensorDataset(torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target))
train_ds, val_ds = random_split(ds, [1450, 347])
train_dl, val_dl = DataLoader(train_ds, 50, shuffle=True), DataLoader(val_ds, 173)
net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
opt = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
soft_ce = nn.CrossEntropyLoss(label_smoothing=0.1)
for epoch in range(5):
    net.train()
    agree = total = 0
    for x, y in train_dl:
        mx, my = mixup(x, y)
        out = net(mx)
        loss = soft_ce(out, my)
        opt.zero_grad()
        loss.backward()
        opt.step()
        agree += (out.argmax(1) == my.argmax(1)).sum().item()
        total += len(x)
    net.eval()
    hits = 0
    with torch.no_grad():
        for x, y in val_dl:
            hits += (net(x).argmax(1) == y).sum().item()
    print(f"epoch {epoch} mixed-train acc {agree / total:.3f} val acc {hits / len(val_ds):.3f}")
