# expect: nothing
# about: a causal transformer by hand with -inf masks, tied embeddings and a tiny vocabulary; learns to count
import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h, self.qkv, self.proj = h, nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.h, C // self.h).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        att = q @ k.transpose(-2, -1) / math.sqrt(C // self.h)
        att = att.masked_fill(torch.triu(torch.ones(T, T, dtype=torch.bool), 1), float("-inf"))
        return self.proj((F.softmax(att, -1) @ v).transpose(1, 2).reshape(B, T, C))


class GPT(nn.Module):
    def __init__(self, vocab=16, d=32, T=12):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, d), nn.Embedding(T, d)
        self.ln1, self.ln2, self.lnf = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn, self.mlp = Attention(d, 4), nn.Sequential(nn.Linear(d, 64), nn.GELU(), nn.Linear(64, d))
        self.head = nn.Linear(d, vocab, bias=False)
        self.head.weight = self.wte.weight
        nn.init.normal_(self.wte.weight, std=0.02)

    def forward(self, idx, targets=None):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        x = x + self.attn(self.ln1(x))
        x = self.lnf(x + self.mlp(self.ln2(x)))
        logits = self.head(x)
        return logits, None if targets is None else F.cross_entropy(logits.view(-1, 16), targets.reshape(-1))


torch.manual_seed(0)
first = torch.randint(0, 16, (800, 1))
step = torch.randint(1, 3, (800, 1))
data = (first + step * torch.arange(12)) % 16
model = GPT()
opt = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
for it in range(140):
    b = data[torch.randint(0, 700, (48,))]
    _, loss = model(b[:, :-1], b[:, 1:])
    opt.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    if it % 35 == 0:
        model.eval()
        with torch.no_grad():
            _, v = model(data[700:, :-1], data[700:, 1:])
        model.train()
        print(it, loss.item(), v.item())
