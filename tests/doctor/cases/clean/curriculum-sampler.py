# expect: nothing
# about: a curriculum sampler gives easy samples first, so early epochs are short and see part of the data, the last one all of it
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset


class CurriculumSampler(Sampler):
    """Yields a growing share of the easiest samples, in random order."""

    def __init__(self, difficulty, epochs, start=0.4):
        self.order = torch.argsort(torch.as_tensor(difficulty))
        self.epochs, self.start, self.epoch = epochs, start, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        share = min(1.0, self.start + (1 - self.start) * self.epoch / max(1, self.epochs - 2))
        return int(share * len(self.order))

    def __iter__(self):
        easy = self.order[: len(self)]
        return iter(easy[torch.randperm(len(easy))].tolist())


torch.manual_seed(0)
d = load_digits()
perm = torch.randperm(len(d.data)).numpy()
X, y = d.data[perm] / 16.0, d.target[perm]
X_tr, y_tr, X_va, y_va = X[:1400], y[:1400], X[1400:], y[1400:]
scorer = LogisticRegression(max_iter=200).fit(X_tr, y_tr)
difficulty = 1 - scorer.predict_proba(X_tr)[range(1400), y_tr]
epochs = 7
sampler = CurriculumSampler(difficulty, epochs)
loader = DataLoader(TensorDataset(torch.tensor(X_tr).float(), torch.tensor(y_tr)), batch_size=40, sampler=sampler)
X_va, y_va = torch.tensor(X_va).float(), torch.tensor(y_va)
net = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(epochs):
    sampler.set_epoch(epoch)
    net.train()
    for a, b in loader:
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(epoch, "samples", len(sampler), "val acc", (net(X_va).argmax(1) == y_va).float().mean().item())
