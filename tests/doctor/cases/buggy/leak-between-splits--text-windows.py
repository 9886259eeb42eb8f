# expect: leak-between-splits [run]
# about: token windows for an LSTM language model; validation windows are drawn from the same stretch of tokens as training
# accept: training-on-validation-data
# accept: evaluation-on-training-data
import random

import torch
from torch import nn

torch.manual_seed(3)
random.seed(3)
words = "the a cat dog bird sees likes chases big small red old house tree river".split()
grammar = [random.choice(words) for _ in range(400)]
for i in range(2, 400):
    if random.random() < 0.7:
        grammar[i] = words[(words.index(grammar[i - 1]) * 3 + words.index(grammar[i - 2])) % len(words)]
vocab = {w: i for i, w in enumerate(sorted(set(words)))}
ids = torch.tensor([vocab[w] for w in grammar])
SEQ = 12
windows = [(ids[i : i + SEQ], ids[i + 1 : i + SEQ + 1]) for i in range(len(ids) - SEQ - 1)]
train_pairs = windows
val_pairs = windows[300:]


class LM(nn.Module):
    def __init__(self, v, d=24):
        super().__init__()
        self.emb = nn.Embedding(v, d)
        self.rnn = nn.LSTM(d, 48, batch_first=True)
        self.out = nn.Linear(48, v)

    def forward(self, x):
        h, _ = self.rnn(self.emb(x))
        return self.out(h)


def batches(pairs, size, shuffle):
    idx = list(range(len(pairs)))
    if shuffle:
        random.shuffle(idx)
    for s in range(0, len(idx), size):
        chunk = [pairs[i] for i in idx[s : s + size]]
        yield torch.stack([c[0] for c in chunk]), torch.stack([c[1] for c in chunk])


lm = LM(len(vocab))
opt = torch.optim.AdamW(lm.parameters(), lr=5e-3)
crit = nn.CrossEntropyLoss()
for ep in range(8):
    lm.train()
    for x, y in batches(train_pairs, 32, True):
        opt.zero_grad()
        loss = crit(lm(x).transpose(1, 2), y)
        loss.backward()
        opt.step()
    lm.eval()
    with torch.no_grad():
        tot = sum(crit(lm(x).transpose(1, 2), y).item() * len(x) for x, y in batches(val_pairs, 32, False))
    print(f"ep {ep} val ppl {torch.tensor(tot / len(val_pairs)).exp():.2f}")
