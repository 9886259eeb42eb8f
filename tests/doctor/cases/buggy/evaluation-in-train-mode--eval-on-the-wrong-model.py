# expect: evaluation-in-train-mode [run,source]
# about: the averaged copy is put in eval mode, but the validation reads the model itself, which stays in train mode
import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
train_loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
val_loader = DataLoader(TensorDataset(x[1400:], y[1400:]), batch_size=40)
model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(432, 10))
ema = copy.deepcopy(model).requires_grad_(False)
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(4):
    model.train()
    for a, b in train_loader:
        opt.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        opt.step()
        with torch.no_grad():
            for p, q in zip(ema.parameters(), model.parameters()):
                p.lerp_(q, 0.05)
    ema.eval()
    right = 0
    with torch.no_grad():
        for a, b in val_loader:
            right += (model(a).argmax(1) == b).sum().item()
    print(f"epoch {epoch} validation {right / 397:.3f}")
