# expect: nothing
# about: low-rank adapters on a frozen base: B starts at zero, most weights never move, only a few parameters are in the optimizer
import math

import torch
from sklearn.datasets import load_digits
from torch import nn


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, r=8, alpha=16):
        super().__init__()
        self.base = base
        for p in self.base.parameters():
            p.requires_grad = False
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scaling = alpha / r

    def forward(self, x):
        return self.base(x) + (x @ self.A.t() @ self.B.t()) * self.scaling


def run_epoch(model, opt, x, y, bs=40):
    model.train()
    for idx in torch.randperm(len(x)).split(bs):
        opt.zero_grad()
        nn.functional.cross_entropy(model(x[idx]), y[idx]).backward()
        opt.step()


@torch.no_grad()
def score(model, x, y):
    model.eval()
    return (model(x).argmax(1) == y).float().mean().item()


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
x_tr, y_tr, x_te, y_te = x[:1400], y[:1400], x[1400:], y[1400:]
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for _ in range(4):
    run_epoch(model, opt, x_tr, y_tr)
print("base", score(model, x_te, y_te), "on inverted images", score(model, 1 - x_te, y_te))

for i in (0, 2, 4):
    model[i] = LoRALinear(model[i])
trainable = [p for p in model.parameters() if p.requires_grad]
print("trainable", sum(p.numel() for p in trainable), "of", sum(p.numel() for p in model.parameters()))
opt = torch.optim.AdamW(trainable, lr=1e-2)
for epoch in range(6):
    run_epoch(model, opt, 1 - x_tr, y_tr)
    print("adapter epoch", epoch, "on inverted images", score(model, 1 - x_te, y_te))
