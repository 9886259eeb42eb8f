# expect: input-ignored [run]
# about: the vocabulary is in lower case and the text in capitals: every word becomes <unk>, all inputs of one length are the same
# allow: not-learning
# allow: same-batch-every-step
# allow: leak-between-splits
import random

import torch
from torch import nn

rnd = random.Random(0)
torch.manual_seed(0)
good = "GREAT LOVELY FINE SUPERB NICE".split()
bad = "AWFUL POOR BORING SAD TERRIBLE".split()
fill = "THE FILM WAS AND A VERY PLOT ACTOR SCENE MUSIC".split()


def review():
    label = rnd.randint(0, 1)
    words = [rnd.choice(fill) for _ in range(6)] + [rnd.choice(good if label else bad) for _ in range(2)]
    rnd.shuffle(words)
    return words, label


vocab = {"<unk>": 0}
for w in good + bad + fill:
    vocab.setdefault(w.lower(), len(vocab))
data = [review() for _ in range(1500)]
ids = torch.tensor([[vocab.get(w, vocab["<unk>"]) for w in words] for words, _ in data])
labels = torch.tensor([label for _, label in data])
train, val = slice(0, 1200), slice(1200, None)
model = nn.Sequential(nn.Embedding(len(vocab), 16), nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 2))
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(5):
    for idx in torch.randperm(1200).split(50):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(ids[train][idx]), labels[train][idx])
        loss.backward()
        opt.step()
    with torch.no_grad():
        out = model(ids[val])
    print(epoch, "val loss", nn.functional.cross_entropy(out, labels[val]).item(), "spread of outputs", out.std(0).max().item())
