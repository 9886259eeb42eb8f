# expect: input-ignored [run]
# about: the padding mask is the wrong way round: the mean is taken over the padding, so the output is the same for every sentence
# allow: not-learning
# allow: underfitting
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

torch.manual_seed(0)
PAD = 0
texts = [torch.randint(1, 50, (int(n),)) for n in torch.randint(4, 10, (1500,))]
data = [(t, int((t < 15).float().mean() > 0.28)) for t in texts]


def collate(rows):
    ids = pad_sequence([r[0] for r in rows] + [torch.zeros(12, dtype=torch.long)], batch_first=True)[:-1]
    return ids, torch.tensor([r[1] for r in rows])


class Bag(nn.Module):
    def __init__(self, d=24):
        super().__init__()
        self.emb = nn.Embedding(50, d)
        self.mlp = nn.Sequential(nn.Linear(d, 24), nn.ReLU(), nn.Linear(24, 2))

    def forward(self, ids):
        mask = (ids == PAD).float().unsqueeze(-1)
        h = (self.emb(ids) * mask).sum(1) / mask.sum(1)
        return self.mlp(h)


model = Bag()
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
train, val = DataLoader(data[:1200], 40, shuffle=True, collate_fn=collate), DataLoader(data[1200:], 300, collate_fn=collate)
for epoch in range(5):
    for ids, label in train:
        opt.zero_grad()
        nn.functional.cross_entropy(model(ids), label).backward()
        opt.step()
    with torch.no_grad():
        for ids, label in val:
            out = model(ids)
            print(epoch, "val", round(nn.functional.cross_entropy(out, label).item(), 4), "spread of outputs", out.std(0).max().item())
