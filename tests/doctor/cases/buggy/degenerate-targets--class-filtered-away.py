# expect: degenerate-targets [run]
# about: the labels of a ten-class problem are read with % 5: classes 5 to 9 never come, though the model has ten outputs
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

CLASSES = [str(i) for i in range(10)]


class Digits(Dataset):
    def __init__(self, rows):
        d = load_digits()
        self.x = torch.tensor(d.images[rows] / 16.0, dtype=torch.float32)[:, None]
        self.y = d.target[rows] % 5  # label codes of the annotation tool

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], int(self.y[i])


torch.manual_seed(0)
train, val = Digits(slice(0, 1400)), Digits(slice(1400, None))
train_dl, val_dl = DataLoader(train, 50, shuffle=True), DataLoader(val, 100)
net = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, len(CLASSES)))
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
for epoch in range(4):
    net.train()
    for a, b in train_dl:
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        guesses = torch.cat([net(a).argmax(1) for a, _ in val_dl])
    print(epoch, "guessed", torch.bincount(guesses, minlength=10).tolist())
