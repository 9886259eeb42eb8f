# expect: augmented-evaluation [run,source]
# about: the validation dataset is made with the training transform: its images are shifted and noisy at random in every pass
import random

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class RandomShift:
    def __call__(self, img):
        return torch.roll(img, random.randint(-2, 2), dims=2)


class RandomNoise:
    def __init__(self, std):
        self.std = std

    def __call__(self, img):
        return img + self.std * torch.randn_like(img)


class Compose:
    def __init__(self, *steps):
        self.steps = steps

    def __call__(self, img):
        for s in self.steps:
            img = s(img)
        return img


class DigitSet(Dataset):
    def __init__(self, rows, transform):
        d = load_digits()
        self.x, self.y = torch.tensor(d.images[rows] / 16.0, dtype=torch.float32)[:, None], d.target[rows].tolist()
        self.transform = transform

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.transform(self.x[i]), self.y[i]


random.seed(0)
torch.manual_seed(0)
transform = Compose(RandomShift(), RandomNoise(0.2))
train, val = DigitSet(slice(0, 1400), transform), DigitSet(slice(1400, None), transform)
train_dl, val_dl = DataLoader(train, 70, shuffle=True), DataLoader(val, 100)
net = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 10))
opt = torch.optim.Adam(net.parameters(), lr=4e-3)
for epoch in range(4):
    net.train()
    for x, y in train_dl:
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        acc = [sum((net(x).argmax(1) == y).sum().item() for x, y in val_dl) / len(val) for _ in range(2)]
    print(epoch, "two passes over the same validation set:", acc)
