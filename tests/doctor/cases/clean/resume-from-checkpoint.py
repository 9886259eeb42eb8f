# expect: nothing
# about: training is broken off and resumed in the same script: a second model and optimizer are made and loaded from a complete checkpoint
import io

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)


def build():
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    return model, optimizer, scheduler


def train(parts, epochs):
    model, optimizer, scheduler = parts
    for epoch in epochs:
        model.train()
        for a, b in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(a), b).backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            acc = (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
        print(f"epoch {epoch} lr {scheduler.get_last_lr()[0]:.1e} acc {acc:.3f}")


torch.manual_seed(0)
parts = build()
train(parts, range(0, 3))
file = io.BytesIO()
names = ("model", "optimizer", "scheduler")
torch.save({**{k: p.state_dict() for k, p in zip(names, parts)}, "epoch": 3, "rng": torch.get_rng_state()}, file)

file.seek(0)
checkpoint = torch.load(file, weights_only=True)
parts = build()
for k, p in zip(names, parts):
    p.load_state_dict(checkpoint[k])
torch.set_rng_state(checkpoint["rng"])
train(parts, range(checkpoint["epoch"], 6))
