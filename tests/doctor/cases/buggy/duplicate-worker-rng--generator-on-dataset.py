# expect: duplicate-worker-rng [run,source]
# about: the dataset holds a numpy Generator with a fixed seed; each worker has a copy of it, and each epoch starts it again
# allow: no-validation
# allow: loader-bound
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Augmented(Dataset):
    def __init__(self, n, seed=0):
        d = load_digits()
        self.images, self.labels = (d.images[:n] / 16.0).astype(np.float32), d.target[:n]
        self.rng = np.random.default_rng(seed)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = np.roll(self.images[i], self.rng.integers(-1, 2), axis=1)
        image = image + self.rng.normal(0, 0.1, image.shape).astype(np.float32)
        return image[None], self.labels[i]


def main():
    torch.manual_seed(0)
    loader = DataLoader(Augmented(480), batch_size=40, shuffle=True, num_workers=2)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(3):
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
        print(epoch, loss.item())


if __name__ == "__main__":
    main()
