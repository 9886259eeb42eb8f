# expect: loader-bound [run]
# about: a spectrum is computed by a slow double loop in the collate function, for every batch of every epoch
# allow: no-validation
import math
import time

import torch
from torch import nn
from torch.utils.data import DataLoader

g = torch.Generator().manual_seed(0)
t = torch.arange(64) / 64
waves = []
for k in range(240):
    f = 3 + 5 * (k % 2)
    waves.append((torch.sin(2 * math.pi * f * t + k) + 0.5 * torch.randn(64, generator=g), k % 2))


def spectrum(wave):
    values = wave.tolist()
    out = []
    for f in range(24):
        re = sum(v * math.cos(2 * math.pi * f * i / 64) for i, v in enumerate(values))
        im = sum(v * math.sin(2 * math.pi * f * i / 64) for i, v in enumerate(values))
        out.append(math.hypot(re, im) / 10)
    return torch.tensor(out)


def collate(rows):
    return torch.stack([spectrum(w) for w, _ in rows]), torch.tensor([c for _, c in rows])


torch.manual_seed(0)
net = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 2))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(4):
    compute, start = 0.0, time.perf_counter()
    for x, y in DataLoader(waves, batch_size=16, shuffle=True, collate_fn=collate):
        tick = time.perf_counter()
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        compute += time.perf_counter() - tick
    print(epoch, round(loss.item(), 4), f"share of waiting {1 - compute / (time.perf_counter() - start):.2f}")
