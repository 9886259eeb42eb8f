# expect: nothing
# about: tic-tac-toe boards as 27 one-hot values; a value network's held-out games share openings with training games
import random

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


def winner(b):
    return next((b[i] for i, j, k in LINES if b[i] and b[i] == b[j] == b[k]), 0)


def play():
    b, who, states = [0] * 9, 1, []
    while 0 in b and not winner(b):
        b[random.choice([i for i in range(9) if not b[i]])] = who
        states.append(b[:])
        who = -who
    return [(s, float(winner(b))) for s in states]


def encode(games):
    pairs = [p for g in games for p in g]
    x = torch.tensor([s for s, _ in pairs])
    return nn.functional.one_hot(x + 1, 3).flatten(1).float(), torch.tensor([[v] for _, v in pairs])


games = [play() for _ in range(250)]
xtr, ytr = encode(games[:200])
xva, yva = encode(games[200:])
value = nn.Sequential(nn.Linear(27, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
opt = torch.optim.Adam(value.parameters(), lr=2e-3)
for epoch in range(4):
    for idx in torch.randperm(len(xtr)).split(64):
        loss = nn.functional.mse_loss(value(xtr[idx]), ytr[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, loss.item(), nn.functional.mse_loss(value(xva), yva).item())
