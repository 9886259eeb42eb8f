# expect: retained-graph [run]
# about: self.history["loss"].append(loss) in a trainer class
# allow: memory-grows
from collections import defaultdict
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Trainer:
    def __init__(self, model):
        self.model = model
        self.opt = torch.optim.AdamW(model.parameters(), lr=3e-3)
        self.history = defaultdict(list)

    def train_epoch(self, loader):
        self.model.train()
        for x, y in loader:
            loss = nn.functional.cross_entropy(self.model(x).transpose(1, 2), y)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            self.history["loss"].append(loss)

    @torch.no_grad()
    def evaluate(self, loader):
        self.model.eval()
        return sum(nn.functional.cross_entropy(self.model(x).transpose(1, 2), y).item() * len(x) for x, y in loader)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.r, self.o = nn.Embedding(15, 16), nn.LSTM(16, 16, bidirectional=True, batch_first=True), nn.Linear(32, 3)

    def forward(self, x):
        return self.o(self.r(self.e(x))[0])


torch.manual_seed(0)
ids = torch.randint(0, 15, (600, 12))
tags = (ids % 3 + ids.roll(1, 1) % 2).clamp(max=2)
tr = DataLoader(TensorDataset(ids[:500], tags[:500]), batch_size=25, shuffle=True)
va = DataLoader(TensorDataset(ids[500:], tags[500:]), batch_size=50)
t = Trainer(Tagger())
for ep in range(4):
    t.train_epoch(tr)
    print(ep, t.history["loss"][-1].item(), t.evaluate(va) / 100)
