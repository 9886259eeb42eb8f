# expect: no-validation [run,source]
# about: a character model trains for several passes on all of its text and is never measured on any other
import torch
from sklearn.datasets import load_diabetes
from torch import nn

torch.manual_seed(0)
text = load_diabetes().DESCR
vocab = {c: i for i, c in enumerate(sorted(set(text)))}
data = torch.tensor([vocab[c] for c in text])


def batches(size=24, seq=24):
    n = len(data) // (size * seq) * size * seq
    x = data[:n].view(size, -1)
    for i in range(0, x.size(1) - 1, seq):
        yield x[:, i : i + seq][:, : x.size(1) - 1 - i], x[:, i + 1 : i + 1 + seq]


class Model(nn.Module):
    def __init__(self, v, h=32):
        super().__init__()
        self.emb, self.rnn, self.out = nn.Embedding(v, h), nn.GRU(h, h, batch_first=True), nn.Linear(h, v)

    def forward(self, x):
        return self.out(self.rnn(self.emb(x))[0])


model = Model(len(vocab))
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(25):
    for x, y in batches():
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x).transpose(1, 2), y)
        loss.backward()
        opt.step()
    if epoch % 5 == 4:
        print(epoch, round(loss.item(), 4))
