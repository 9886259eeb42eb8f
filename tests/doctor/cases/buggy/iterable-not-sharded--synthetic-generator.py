# expect: iterable-not-sharded [run,source]
# about: an IterableDataset walks a list of files; with two workers each file is read by both
# allow: no-validation
# allow: loader-bound
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class Files(IterableDataset):
    """Each 'file' is a slice of the table."""

    def __init__(self, n_files=10):
        self.bunch = load_breast_cancer()
        self.mean, self.std = self.bunch.data[:500].mean(0), self.bunch.data[:500].std(0)
        self.files = [slice(50 * k, 50 * (k + 1)) for k in range(n_files)]

    def read(self, file):
        for x, y in zip(self.bunch.data[file], self.bunch.target[file]):
            yield torch.tensor((x - self.mean) / self.std, dtype=torch.float32), int(y)

    def __iter__(self):
        for k in torch.randperm(len(self.files)).tolist():
            yield from self.read(self.files[k])


def main():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    loader = DataLoader(Files(), batch_size=25, num_workers=2)
    for epoch in range(3):
        rows = 0
        for x, y in loader:
            loss = nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            rows += len(x)
        print(epoch, "rows", rows, "of 500, loss", round(loss.item(), 4))


if __name__ == "__main__":
    main()
