# expect: same-order-every-epoch [run,source]
# about: a loader is built in each epoch with a generator seeded anew: shuffled, but always to the same order
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train_loader(dataset, seed=42):
    g = torch.Generator()
    g.manual_seed(seed)
    return DataLoader(dataset, batch_size=50, shuffle=True, generator=g)


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
train = TensorDataset(x[:1400], y[:1400])
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
opt = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
for epoch in range(5):
    first = None
    for a, b in train_loader(train):
        first = b[:8].tolist() if first is None else first
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
    with torch.no_grad():
        print(epoch, "first labels", first, "acc", (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
