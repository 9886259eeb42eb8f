# expect: nothing
# about: a small ViT: patches by reshape + permute, heads by view + transpose, all right; suspicious to reshape-instead-of-transpose
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images, dtype=torch.float32)[:, None] / 16, torch.tensor(d.target)


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.o = nn.Linear(d, d)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        w = (q @ k.transpose(-2, -1) / (c // self.heads) ** 0.5).softmax(-1)
        return self.o((w @ v).transpose(1, 2).reshape(b, t, c))


class ViT(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.proj = nn.Linear(4, d)
        self.pos = nn.Parameter(0.02 * torch.randn(16, d))
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.att = Attention(d, 4)
        self.ff = nn.Sequential(nn.Linear(d, 64), nn.GELU(), nn.Linear(64, d))
        self.head = nn.Linear(d, 10)

    def forward(self, img):
        b = img.shape[0]
        p = img.reshape(b, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(b, 16, 4)
        h = self.proj(p) + self.pos
        h = h + self.att(self.n1(h))
        h = h + self.ff(self.n2(h))
        return self.head(h.mean(1))


vit = ViT()
opt = torch.optim.AdamW(vit.parameters(), lr=3e-3)
for epoch in range(4):
    vit.train()
    for idx in torch.randperm(1400).split(50):
        loss = nn.functional.cross_entropy(vit(x[idx]), y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    vit.eval()
    with torch.no_grad():
        print(epoch, loss.item(), (vit(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
