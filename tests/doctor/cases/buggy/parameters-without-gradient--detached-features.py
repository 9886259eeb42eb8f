# expect: parameters-without-gradient [run]
# about: the encoder's output is detached before the classifier, so the encoder in the optimizer never gets a gradient
import torch
from torch import nn

torch.manual_seed(0)
VOCAB, LEN = 60, 12


def sentences(n, g):
    ids = torch.randint(1, VOCAB, (n, LEN), generator=g)
    return ids, ((ids < 20).sum(1) > (ids >= 40).sum(1)).long()


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 16)
        self.proj = nn.Linear(16, 16)

    def forward(self, ids):
        return torch.tanh(self.proj(self.emb(ids).mean(1)))


class Classifier(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.fc = nn.Linear(16, 2)

    def forward(self, ids):
        features = self.encoder(ids).detach()
        return self.fc(features)


g = torch.Generator().manual_seed(0)
(x, y), (xv, yv) = sentences(1500, g), sentences(400, g)
model = Classifier(Encoder())
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(6):
    model.train()
    for idx in torch.randperm(1500).split(75):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[idx]), y[idx]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        print(epoch, (model(xv).argmax(1) == yv).float().mean().item())
