# expect: clip-out-of-order [run,source]
# about: clip_grad_value_ on a character LSTM comes after step and just before zero_grad: it clips what nobody uses
# allow: overfitting
# allow: last-weights-kept
import torch
from sklearn.datasets import load_wine
from torch import nn

torch.manual_seed(0)
text = load_wine().DESCR
chars = sorted(set(text))
ids = torch.tensor([chars.index(c) for c in text])
train, val = ids[:2700], ids[2700:]
SEQ = 30


class CharRNN(nn.Module):
    def __init__(self, vocab, hidden=48):
        super().__init__()
        self.emb = nn.Embedding(vocab, 16)
        self.lstm = nn.LSTM(16, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, vocab)

    def forward(self, x):
        return self.fc(self.lstm(self.emb(x))[0])


def chunk(source, n):
    start = torch.randint(0, len(source) - SEQ - 1, (n,))
    rows = start[:, None] + torch.arange(SEQ + 1)
    return source[rows[:, :-1]], source[rows[:, 1:]]


model = CharRNN(len(chars))
optimizer = torch.optim.RMSprop(model.parameters(), lr=4e-3)
for step in range(1, 121):
    x, y = chunk(train, 24)
    loss = nn.functional.cross_entropy(model(x).transpose(1, 2), y)
    loss.backward()
    optimizer.step()
    nn.utils.clip_grad_value_(model.parameters(), 0.05)
    optimizer.zero_grad()
    if step % 40 == 0:
        with torch.no_grad():
            a, b = chunk(val, 40)
            print(step, round(loss.item(), 3), round(nn.functional.cross_entropy(model(a).transpose(1, 2), b).item(), 3))
