# expect: memory-grows [run]
# about: every training batch is cloned into a "replay" list without a limit, of which only one is used a step
# allow: no-validation
import random

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 512))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
basis = torch.randn(8, 512) / 8**0.5
replay = []
for step in range(200):
    batch = torch.randn(128, 8) @ basis + 0.1 * torch.randn(128, 512)
    replay.append(batch.clone())
    old = random.choice(replay)
    loss = nn.functional.mse_loss(net(batch), batch) + 0.2 * nn.functional.mse_loss(net(old), old)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 50 == 49:
        print(step + 1, round(loss.item(), 4), "kept MB", round(len(replay) * batch.numel() * 4 / 1e6, 1))
