# expect: nothing
# about: rates that fall from head to stem by a factor of ten a block, so the first layers move very little on purpose
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn, optim

cfg = {"lr": 8e-3, "decay": 0.1, "epochs": 20, "bs": 24, "seed": 5}
torch.manual_seed(cfg["seed"])
bunch = load_wine()
Xa, Xb, ya, yb = train_test_split(bunch.data, bunch.target, test_size=0.3, stratify=bunch.target, random_state=cfg["seed"])
mu, sd = Xa.mean(0), Xa.std(0)
Xa, Xb = (torch.tensor((v - mu) / sd, dtype=torch.float32) for v in (Xa, Xb))
ya, yb = torch.tensor(ya), torch.tensor(yb)

blocks = nn.ModuleList([
    nn.Sequential(nn.Linear(13, 32), nn.ReLU()),
    nn.Sequential(nn.Linear(32, 32), nn.ReLU()),
    nn.Linear(32, 3),
])


def forward(x):
    for b in blocks:
        x = b(x)
    return x


groups = [{"params": b.parameters(), "lr": cfg["lr"] * cfg["decay"] ** (len(blocks) - 1 - i)} for i, b in enumerate(blocks)]
optimizer = optim.Adam(groups)
warm = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.2, total_iters=3)
for epoch in range(cfg["epochs"]):
    for ix in torch.randperm(len(Xa)).split(cfg["bs"]):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(forward(Xa[ix]), ya[ix])
        loss.backward()
        optimizer.step()
    warm.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            out = forward(Xb)
        print(epoch, [f"{g['lr']:.1e}" for g in optimizer.param_groups], (out.argmax(1) == yb).float().mean().item())
