# expect: nothing
# about: a stream that each of two workers reads its own share of, by get_worker_info, with randomness that differs by worker and epoch
# allow: loader-bound
import itertools

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

D = load_digits()
X, Y = torch.tensor(D.data / 16.0, dtype=torch.float32), torch.tensor(D.target)


class Shards(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        info = get_worker_info()
        rows = self.rows if info is None else self.rows[info.id :: info.num_workers]
        buffer = []
        for i in itertools.chain(rows, [None] * 64):
            if i is not None:
                buffer.append(i)
            if buffer and (i is None or len(buffer) > 64):
                k = buffer.pop(int(torch.randint(len(buffer), (1,))))
                yield X[k] + 0.05 * torch.randn(64), Y[k]
        for k in buffer:
            yield X[k], Y[k]


def main():
    torch.manual_seed(0)
    order = torch.randperm(1400).tolist()
    loader = DataLoader(Shards(order), batch_size=50, num_workers=2)
    net = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(3):
        seen = 0
        net.train()
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            seen += len(y)
        net.eval()
        with torch.no_grad():
            print(epoch, "seen", seen, "acc", (net(X[1400:]).argmax(1) == Y[1400:]).float().mean().item())


if __name__ == "__main__":
    main()
