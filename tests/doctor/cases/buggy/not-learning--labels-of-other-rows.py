# expect: not-learning [run]
# about: labels are read from a list in another order than the images: the training loss stays at ln 10
# allow: underfitting
# allow: input-ignored
# allow: inputs-and-targets-misaligned
import random

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class FolderLike(Dataset):
    """Image names and label names come from two listings."""

    def __init__(self, names, images, targets):
        self.images = [images[n] for n in names]
        listing = list(names)
        random.Random(3).shuffle(listing)  # os.listdir gives no order
        self.labels = [targets[n] for n in listing]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return torch.tensor(self.images[i] / 16.0, dtype=torch.float32).flatten(), int(self.labels[i])


torch.manual_seed(0)
d = load_digits()
order = torch.randperm(1797).tolist()
train = FolderLike(order[:1400], d.images, d.target)
val = FolderLike(order[1400:], d.images, d.target)
train_loader, val_loader = DataLoader(train, 50, shuffle=True), DataLoader(val, 100)
model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
opt = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(6):
    model.train()
    total = 0.0
    for x, y in train_loader:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        total += loss.item() * len(y) / len(train)
    model.eval()
    with torch.no_grad():
        acc = sum((model(x).argmax(1) == y).sum().item() for x, y in val_loader) / len(val)
    print(f"epoch {epoch} train loss {total:.4f} val acc {acc:.3f}")
