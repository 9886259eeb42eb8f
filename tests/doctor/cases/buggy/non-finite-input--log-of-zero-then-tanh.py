# expect: non-finite-input [run]
# about: the log of a count feature that is zero in some rows: -inf goes into the network
# allow: non-finite-value
# allow: weights-do-not-move
# allow: not-learning
# allow: degenerate-targets
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)


class Visits(Dataset):
    def __init__(self, n):
        self.counts = torch.poisson(torch.full((n, 6), 4.0))
        self.label = (self.counts[:, 0] > self.counts[:, 1]).long()

    def __len__(self):
        return len(self.label)

    def __getitem__(self, i):
        return torch.log(self.counts[i]), self.label[i]


loader = DataLoader(Visits(640), batch_size=32, shuffle=True)
model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss()
for epoch in range(4):
    total = 0
    for feats, lab in loader:
        optimizer.zero_grad()
        loss = criterion(model(feats), lab)
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(epoch, total / len(loader))
