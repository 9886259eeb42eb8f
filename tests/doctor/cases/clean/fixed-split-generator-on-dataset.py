# expect: nothing
# about: the dataset keeps a seeded generator that only made its data once in __init__; two workers read, nobody draws
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Blobs(Dataset):
    def __init__(self, n, seed):
        self.rng = np.random.default_rng(seed)
        self.y = self.rng.integers(0, 3, n)
        centers = np.array([[0, 2], [2, 0], [-2, -1]])
        self.x = (centers[self.y] + self.rng.normal(0, 0.8, (n, 2))).astype(np.float32)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


if __name__ == "__main__":
    torch.manual_seed(0)
    train = DataLoader(Blobs(1200, 0), 40, shuffle=True, num_workers=2, persistent_workers=True)
    val = DataLoader(Blobs(300, 1), 300)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(3):
        net.train()
        for x, y in train:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            for x, y in val:
                print(epoch, (net(x).argmax(1) == y).float().mean().item())
