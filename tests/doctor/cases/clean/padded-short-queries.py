# expect: nothing
# about: short queries of a small vocabulary padded to 20 tokens, embedding bag; equal queries on both sides by nature
import random

import torch
from torch import nn

random.seed(1)
torch.manual_seed(1)
PAD = 0


def query():
    n = random.choice([1, 1, 2, 2, 3, 4])
    topic = random.randrange(3)
    words = [1 + topic * 20 + min(int(random.expovariate(0.3)), 19) for _ in range(n)]
    return words + [PAD] * (20 - n), topic


data = [query() for _ in range(1500)]
ids = torch.tensor([q for q, _ in data])
labels = torch.tensor([t for _, t in data])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(61, 16, padding_idx=PAD)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        mask = (x != PAD).float().unsqueeze(-1)
        return self.fc((self.emb(x) * mask).sum(1) / mask.sum(1))


net = Net()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(5):
    for idx in torch.randperm(1200).split(60):
        loss = nn.functional.cross_entropy(net(ids[idx]), labels[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, (net(ids[1200:]).argmax(1) == labels[1200:]).float().mean().item())
