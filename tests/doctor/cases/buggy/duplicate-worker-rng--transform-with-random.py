# expect: duplicate-worker-rng [run]
# about: the random.Random of a transform object inside the dataset is copied to each worker; class for the noise
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class RandomShift:
    def __init__(self, amount: float, seed: int = 7) -> None:
        self.amount = amount
        self.random = random.Random(seed)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.random.uniform(-self.amount, self.amount)


class Waves(Dataset):
    def __init__(self, n: int, transform=None) -> None:
        g = torch.Generator().manual_seed(0)
        self.freq = torch.randint(1, 4, (n,), generator=g)
        self.noise = 0.2 * torch.randn(n, 40, generator=g)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.freq)

    def __getitem__(self, i: int):
        t = torch.linspace(0, 6.28, 40)
        x = torch.sin(t * self.freq[i]) + self.noise[i]
        if self.transform:
            x = self.transform(x)
        return x, self.freq[i] - 1


def train(epochs: int = 3) -> None:
    torch.manual_seed(0)
    dl = DataLoader(Waves(1024, RandomShift(0.3)), 32, shuffle=True, num_workers=2, drop_last=True)
    net = nn.Sequential(nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for x, y in dl:
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(net(x), y)
            loss.backward()
            optimizer.step()
        print(loss.item())


if __name__ == "__main__":
    train()
