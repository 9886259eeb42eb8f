# expect: nothing
# about: bag-of-words rows of short messages with a big vocabulary; many messages share the same words ("ok", "thanks") in train and test
import random

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
common = ["ok", "thanks", "yes please", "no", "see you"]
ham = "meeting lunch tomorrow report home dinner call later project kids school".split()
spam = "win prize cash free offer click urgent claim bonus credit".split()


def message():
    if random.random() < 0.3:
        return random.choice(common), 0
    is_spam = random.random() < 0.4
    pool = (spam * 3 + ham) if is_spam else (ham * 3 + spam)
    return " ".join(random.choices(pool, k=random.randint(2, 6))), int(is_spam)


data = [message() for _ in range(1200)]
train, test = data[:1000], data[1000:]
vocab = {w: i for i, w in enumerate(sorted({w for t, _ in train for w in t.split()}))}


def vectorize(pairs):
    x = torch.zeros(len(pairs), len(vocab))
    for row, (text, _) in enumerate(pairs):
        for w in text.split():
            if w in vocab:
                x[row, vocab[w]] += 1
    return x, torch.tensor([float(l) for _, l in pairs])


xtr, ytr = vectorize(train)
xte, yte = vectorize(test)
clf = nn.Linear(len(vocab), 1)
opt = torch.optim.Adam(clf.parameters(), lr=2e-2)
for epoch in range(6):
    for idx in torch.randperm(len(xtr)).split(64):
        loss = nn.functional.binary_cross_entropy_with_logits(clf(xtr[idx])[:, 0], ytr[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, ((clf(xte)[:, 0] > 0).float() == yte).float().mean().item())
