# expect: nothing
# about: train, validation and test by Subset of one dataset object without randomness; chosen on validation, test read once at the end
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset


class Digits(Dataset):
    def __init__(self):
        bunch = load_digits()
        self.images, self.targets = bunch.images, bunch.target

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return torch.tensor(self.images[i] / 16.0, dtype=torch.float32)[None], int(self.targets[i])


def evaluate(net, loader):
    net.eval()
    loss = hits = n = 0.0
    with torch.no_grad():
        for x, y in loader:
            out = net(x)
            loss += nn.functional.cross_entropy(out, y, reduction="sum").item()
            hits += (out.argmax(1) == y).sum().item()
            n += y.numel()
    return loss / n, hits / n


torch.manual_seed(0)
data = Digits()
idx = torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).tolist()
train, val, test = Subset(data, idx[:1200]), Subset(data, idx[1200:1500]), Subset(data, idx[1500:])
train_loader = DataLoader(train, batch_size=40, shuffle=True)
val_loader, test_loader = DataLoader(val, batch_size=100), DataLoader(test, batch_size=100)
candidates = {}
for width in (8, 16):
    net = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9 * width, 10))
    opt = torch.optim.Adam(net.parameters(), lr=4e-3)
    for epoch in range(3):
        net.train()
        for x, y in train_loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    candidates[width] = (*evaluate(net, val_loader), net)
    print("width", width, "validation", candidates[width][:2])
chosen = min(candidates.values(), key=lambda c: c[0])[2]
print("test, once:", evaluate(chosen, test_loader))
