# expect: augmented-evaluation [run]
# about: one Dataset class with random crop and noise, used with the same transform for train and val
import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset


def augment(img):
    if np.random.rand() < 0.5:
        img = np.fliplr(img).copy()
    dx = np.random.randint(-1, 2)
    return np.roll(img, dx, axis=1)


class Digits(Dataset):
    def __init__(self, images, targets):
        self.images, self.targets = images, targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        img = augment(self.images[i])
        return torch.from_numpy(img.copy()).float()[None] / 16, int(self.targets[i])


np.random.seed(0)
torch.manual_seed(0)
d = load_digits()
train_dl = DataLoader(Digits(d.images[:1300], d.target[:1300]), batch_size=64, shuffle=True)
val_dl = DataLoader(Digits(d.images[1300:], d.target[1300:]), batch_size=128)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(5):
    model.train()
    for x, y in train_dl:
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
    model.eval()
    ok = 0
    with torch.no_grad():
        for x, y in val_dl:
            ok += (model(x).argmax(1) == y).sum().item()
    print(epoch, ok / len(val_dl.dataset))
