# expect: augmented-evaluation [run]
# about: collate function adds mixup-like noise and is given to both loaders
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader


def noisy_collate(samples):
    x = torch.stack([s[0] for s in samples])
    y = torch.stack([s[1] for s in samples])
    return {"x": x + 0.3 * torch.randn_like(x), "y": y}


torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
Xa, Xb, ya, yb = train_test_split(X, y, test_size=0.2, random_state=0)
sc = StandardScaler().fit(Xa)
train = list(zip(torch.tensor(sc.transform(Xa), dtype=torch.float32), torch.tensor(ya, dtype=torch.float32)))
val = list(zip(torch.tensor(sc.transform(Xb), dtype=torch.float32), torch.tensor(yb, dtype=torch.float32)))
train_loader = DataLoader(train, 32, shuffle=True, collate_fn=noisy_collate)
val_loader = DataLoader(val, 64, collate_fn=noisy_collate)
net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
crit, opt = nn.BCEWithLogitsLoss(), torch.optim.Adam(net.parameters(), lr=5e-3)


@torch.no_grad()
def validate():
    net.eval()
    losses = [crit(net(b["x"]).squeeze(1), b["y"]) * len(b["y"]) for b in val_loader]
    return sum(losses).item() / len(val)


for epoch in range(6):
    net.train()
    for b in train_loader:
        opt.zero_grad()
        crit(net(b["x"]).squeeze(1), b["y"]).backward()
        opt.step()
    print(epoch, validate())
