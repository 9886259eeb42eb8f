# expect: evaluation-builds-graph [run,source]
# about: model.eval() is called but no_grad is not: each validation forward records a graph that nobody uses
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, random_split

torch.manual_seed(0)
imgs = torch.tensor(load_digits().data / 16.0, dtype=torch.float32)
train, valid = random_split(imgs, [1400, 397])
loaders = DataLoader(train, 70, shuffle=True), DataLoader(valid, 100)
enc = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.05), nn.Linear(32, 8))
dec = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
opt = torch.optim.Adam([*enc.parameters(), *dec.parameters()], lr=4e-3)
bce = nn.BCELoss()
for epoch in range(6):
    enc.train(), dec.train()
    for img in loaders[0]:
        opt.zero_grad()
        bce(dec(enc(img)), img).backward()
        opt.step()
    enc.eval(), dec.eval()
    valid_loss = 0.0
    for img in loaders[1]:
        loss = bce(dec(enc(img)), img)
        valid_loss += loss.item() * len(img)
    print(f"epoch {epoch} valid {valid_loss / len(valid):.4f}")
