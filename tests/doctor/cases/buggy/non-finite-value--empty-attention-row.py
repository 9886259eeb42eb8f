# expect: non-finite-value [run]
# about: an attention mask hides every position of an empty sequence: softmax over minus infinities gives NaN
# allow: not-learning
# allow: no-validation
import math

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

torch.manual_seed(2)
samples = []
for _ in range(600):
    n = int(torch.randint(0, 9, (1,))) if torch.rand(1) < 0.2 else int(torch.randint(3, 9, (1,)))
    ids = torch.randint(1, 30, (n,))
    samples.append((ids, int((ids < 10).sum() > n / 3)))
PADDING = torch.zeros(9, dtype=torch.long)


def collate(rows):
    ids = pad_sequence([r[0] for r in rows] + [PADDING], batch_first=True)[:-1]
    return ids, torch.tensor([r[1] for r in rows])


class Attend(nn.Module):
    def __init__(self, d=16):
        super().__init__()
        self.emb = nn.Embedding(30, d, padding_idx=0)
        self.query = nn.Parameter(torch.randn(d) / math.sqrt(d))
        self.fc = nn.Linear(d, 2)

    def forward(self, ids):
        h = self.emb(ids)
        score = (h @ self.query).masked_fill(ids == 0, float("-inf"))
        return self.fc((torch.softmax(score, 1).unsqueeze(2) * h).sum(1))


model = Attend()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(4):
    for ids, label in DataLoader(samples, batch_size=20, shuffle=True, collate_fn=collate):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(ids), label)
        loss.backward()
        opt.step()
    print(epoch, loss.item())
