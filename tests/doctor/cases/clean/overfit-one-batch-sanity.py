# expect: nothing
# about: a sanity test says it overfits one batch on purpose, before the real training on all data begins
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def build():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def overfit_one_batch(model, batch, steps=60):
    """Sanity check: a model that cannot memorise one batch has a bug. Not a training run."""
    x, y = batch
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss.item() < 0.05, f"cannot overfit one batch: {loss.item():.3f}"
    print("sanity check passed, loss on the one batch", round(loss.item(), 4))


torch.manual_seed(0)
d = load_digits()
full = TensorDataset(torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target))
train_ds, val_ds = random_split(full, [1400, 397], generator=torch.Generator().manual_seed(0))
train_loader, val_loader = DataLoader(train_ds, batch_size=56, shuffle=True), DataLoader(val_ds, batch_size=200)
overfit_one_batch(build(), next(iter(train_loader)))

model = build()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(4):
    model.train()
    for x, y in train_loader:
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        hits = sum((model(x).argmax(1) == y).sum().item() for x, y in val_loader)
    print(epoch, hits / len(val_ds))
