# expect: iterable-not-sharded [run,source]
# about: a stream of lines in an IterableDataset with num_workers=2: every line comes twice an epoch
import json
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class JsonLines(IterableDataset):
    def __init__(self, lines):
        super().__init__()
        self.lines = lines

    def parse(self, line):
        row = json.loads(line)
        return torch.tensor(row["x"]), torch.tensor(row["y"])

    def __iter__(self):
        return map(self.parse, self.lines)


if __name__ == "__main__":
    random.seed(0)
    torch.manual_seed(0)
    lines = []
    for _ in range(900):
        x = [random.gauss(0, 1) for _ in range(6)]
        lines.append(json.dumps({"x": x, "y": int(sum(x[:3]) > 0)}))
    loader = DataLoader(JsonLines(lines), batch_size=32, num_workers=2)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for epoch in range(3):
        seen = 0
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            seen += len(y)
        print(epoch, seen, loss.item())
