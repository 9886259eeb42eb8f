# expect: non-finite-value [run]
# about: a hand-written distance loss sqrt(sum d^2) without epsilon: the gradient of sqrt at 0 is NaN
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x):
        return self.net(x)


def contrastive(a, b, same, margin=1.0):
    dist = torch.sqrt(((a - b) ** 2).sum(1))
    return (same * dist**2 + (1 - same) * torch.clamp(margin - dist, min=0) ** 2).mean()


torch.manual_seed(0)
protos = torch.randn(8, 6)
cls = torch.randint(0, 8, (600,))
points = protos[cls] + 0.1 * torch.randn(600, 6)
enc = Encoder()
opt = torch.optim.Adam(enc.parameters(), lr=1e-3)
for step in range(100):
    i, j = torch.randint(0, 600, (2, 64))
    if step == 20:
        j[0] = i[0]  # a sample drawn with itself
    same = (cls[i] == cls[j]).float()
    loss = contrastive(enc(points[i]), enc(points[j]), same)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item())
