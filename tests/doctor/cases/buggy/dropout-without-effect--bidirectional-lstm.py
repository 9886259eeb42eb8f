# expect: dropout-without-effect [run,source]
# about: a bidirectional LSTM of one layer with dropout=0.4: two directions are not two layers
import torch
import torch.nn as nn


class Tagger(nn.Module):
    def __init__(self, vocab=30, tags=3):
        super().__init__()
        self.emb = nn.Embedding(vocab, 16)
        self.lstm = nn.LSTM(16, 20, bidirectional=True, batch_first=True, dropout=0.4)
        self.out = nn.Linear(40, tags)

    def forward(self, x):
        return self.out(self.lstm(self.emb(x))[0])


def data(n, g):
    x = torch.randint(0, 30, (n, 12), generator=g)
    before = torch.cat([x[:, :1], x[:, :-1]], 1)
    return x, (x > before).long() + ((x > 20) & (x > before)).long()


torch.manual_seed(0)
g = torch.Generator().manual_seed(0)
(x, y), (xv, yv) = data(800, g), data(200, g)
tagger = Tagger()
opt = torch.optim.Adam(tagger.parameters(), lr=5e-3)
for epoch in range(4):
    tagger.train()
    for i in torch.randperm(800).split(40):
        opt.zero_grad()
        nn.functional.cross_entropy(tagger(x[i]).flatten(0, 1), y[i].flatten()).backward()
        opt.step()
    tagger.eval()
    with torch.no_grad():
        print(epoch, (tagger(xv).argmax(-1) == yv).float().mean().item())
