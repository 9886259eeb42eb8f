# expect: nothing
# about: a language model whose output layer is its embedding; text windows in order; held-out text from a later part
import math

import torch
from sklearn.datasets import load_iris
from torch import nn

text = load_iris().DESCR.lower()
chars = sorted(set(text))
stoi = {c: i for i, c in enumerate(chars)}
ids = torch.tensor([stoi[c] for c in text])
cut = int(0.8 * len(ids))
block = 24


class CharLM(nn.Module):
    def __init__(self, vocab, dim=32):
        super().__init__()
        self.encoder = nn.Embedding(vocab, dim)
        self.rnn = nn.GRU(dim, dim, batch_first=True)
        self.decoder = nn.Linear(dim, vocab)
        self.decoder.weight = self.encoder.weight
        nn.init.normal_(self.encoder.weight, std=0.1)

    def forward(self, x):
        return self.decoder(self.rnn(self.encoder(x))[0])


def get_batch(source, n=32):
    ix = torch.randint(len(source) - block - 1, (n,))
    x = torch.stack([source[i : i + block] for i in ix])
    y = torch.stack([source[i + 1 : i + block + 1] for i in ix])
    return x, y


@torch.no_grad()
def estimate_loss(model, source, rounds=5):
    model.eval()
    losses = torch.zeros(rounds)
    for k in range(rounds):
        x, y = get_batch(source)
        losses[k] = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
    model.train()
    return losses.mean().item()


torch.manual_seed(1337)
model = CharLM(len(chars))
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
print("parameters", sum(p.numel() for p in model.parameters()), "uniform loss", round(math.log(len(chars)), 3))
for it in range(161):
    if it % 40 == 0:
        print(f"step {it}: train {estimate_loss(model, ids[:cut]):.3f}, val {estimate_loss(model, ids[cut:]):.3f}")
    xb, yb = get_batch(ids[:cut])
    logits = model(xb)
    loss = nn.functional.cross_entropy(logits.view(-1, logits.size(-1)), yb.view(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
