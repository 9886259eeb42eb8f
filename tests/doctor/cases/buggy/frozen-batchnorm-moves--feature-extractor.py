# expect: frozen-batchnorm-moves [run,source]
# about: a frozen extractor is called under no_grad but stays in train mode: its running statistics follow the new task's data
import torch
from sklearn.datasets import load_digits
from torch import nn


class Extractor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 20), nn.BatchNorm1d(20), nn.ReLU())

    def forward(self, x):
        return self.net(x)


class Transfer(nn.Module):
    def __init__(self, extractor, classes):
        super().__init__()
        self.extractor = extractor
        self.extractor.requires_grad_(False)
        self.fc = nn.Linear(20, classes)

    def forward(self, x):
        with torch.no_grad():
            h = self.extractor(x)
        return self.fc(h)


def fit(model, x, y, epochs, lr):
    opt = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(epochs):
        model.train()
        for idx in torch.randperm(len(x)).split(50):
            opt.zero_grad()
            nn.functional.cross_entropy(model(x[idx]), y[idx]).backward()
            opt.step()


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
perm = torch.randperm(len(x))
tr, va = perm[:1400], perm[1400:]
extractor = Extractor()
fit(nn.Sequential(extractor, nn.Linear(20, 10)), x[tr], y[tr], 3, 5e-3)
saved = extractor.net[1].running_mean.clone()
odd = y % 2
model = Transfer(extractor, 2)
fit(model, 1 - x[tr], odd[tr], 4, 5e-3)
model.eval()
with torch.no_grad():
    print("odd or even on inverted digits", (model(1 - x[va]).argmax(1) == odd[va]).float().mean().item())
print("running mean moved by", (extractor.net[1].running_mean - saved).abs().max().item())
