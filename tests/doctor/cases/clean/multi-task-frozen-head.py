# expect: nothing
# about: a perceptual loss: a frozen classifier judges an autoencoder's output; gradients flow through it, none to it, it stays in eval mode
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

torch.manual_seed(0)
d = load_digits()
x = torch.tensor(d.data / 16.0, dtype=torch.float32)
y = torch.tensor(d.target)
p = torch.randperm(len(x))
x_train, y_train, x_val, y_val = x[p[:1400]], y[p[:1400]], x[p[1400:]], y[p[1400:]]


def batches(n, size):
    return torch.randperm(n).split(size)


judge = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
opt = torch.optim.Adam(judge.parameters(), lr=5e-3)
for _ in range(5):
    for b in batches(1400, 70):
        opt.zero_grad()
        F.cross_entropy(judge(x_train[b]), y_train[b]).backward()
        opt.step()
judge.eval()
judge.requires_grad_(False)
with torch.no_grad():
    print("judge", (judge(x_val).argmax(1) == y_val).float().mean().item())

auto = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8), nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
opt = torch.optim.Adam(auto.parameters(), lr=3e-3)
for epoch in range(8):
    auto.train()
    for b in batches(1400, 70):
        opt.zero_grad()
        rebuilt = auto(x_train[b])
        pixel = F.mse_loss(rebuilt, x_train[b])
        feature = F.cross_entropy(judge(rebuilt), y_train[b])
        (pixel * 10 + 0.1 * feature).backward()
        opt.step()
    auto.eval()
    with torch.no_grad():
        r = auto(x_val)
        print(epoch, "val mse", round(F.mse_loss(r, x_val).item(), 4), "judged", round((judge(r).argmax(1) == y_val).float().mean().item(), 3))
