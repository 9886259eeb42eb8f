# expect: duplicate-worker-rng [run,source]
# about: __getitem__ seeds torch with a constant, "for repeatable augmentation": each sample of each worker gets the same noise
# allow: no-validation
# allow: loader-bound
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noisy(Dataset):
    def __init__(self, n):
        d = load_digits()
        self.x = torch.tensor(d.data[:n] / 16.0, dtype=torch.float32)
        self.y = torch.tensor(d.target[:n])

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        torch.manual_seed(1234)
        drop = (torch.rand(64) > 0.3).float()
        return self.x[i] * drop, self.y[i]


def run():
    torch.manual_seed(0)
    loader = DataLoader(Noisy(600), batch_size=60, shuffle=True, num_workers=2)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for epoch in range(3):
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
        print(epoch, "loss", round(loss.item(), 4), "pixels ever dropped in the last batch", int((x.abs().sum(0) == 0).sum()))


if __name__ == "__main__":
    run()
