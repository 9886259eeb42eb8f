# expect: frozen-batchnorm-moves [run,source]
# about: stage 1 of a small ResNet is frozen by name after pretraining, model.train() in each epoch lets its BatchNorm follow the new data
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Residual(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(ch, ch, 3, padding=1), nn.BatchNorm2d(ch)

    def forward(self, x):
        return torch.relu(x + self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Residual(8))
        self.stage2 = nn.Sequential(nn.MaxPool2d(2), Residual(8))
        self.fc = nn.Linear(128, 10)

    def forward(self, x):
        return self.fc(self.stage2(self.stage1(x)).flatten(1))


def epoch(net, loader, opt):
    net.train()
    for a, b in loader:
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()


def acc(net, a, b):
    net.eval()
    with torch.no_grad():
        return (net(a).argmax(1) == b).float().mean().item()


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
net = Net()
opt = torch.optim.Adam(net.parameters(), lr=4e-3)
for _ in range(2):
    epoch(net, DataLoader(TensorDataset(x[:900], y[:900]), 45, shuffle=True), opt)
print("clean images", acc(net, x[1400:], y[1400:]))
dim = lambda v: 0.4 * v + 0.3
for name, p in net.named_parameters():
    if name.startswith("stage1"):
        p.requires_grad = False
opt = torch.optim.Adam((p for p in net.parameters() if p.requires_grad), lr=2e-3)
for _ in range(3):
    epoch(net, DataLoader(TensorDataset(dim(x[900:1400]), y[900:1400]), 50, shuffle=True), opt)
    print("dim images", acc(net, dim(x[1400:]), y[1400:]), "clean", acc(net, x[1400:], y[1400:]))
