# expect: nothing
# about: CTC: log-probabilities over the last dimension of (T, N, C), targets flat with lengths, class 0 is a blank that never is a target
import torch
from torch import nn

torch.manual_seed(0)
SYMBOLS, T, DIM = 5, 18, 6
prototypes = torch.randn(SYMBOLS + 1, DIM)


def make_sample():
    """A strip of frames: each symbol lasts two or three frames, with noise between them."""
    n = int(torch.randint(2, 5, (1,)))
    word = torch.randint(1, SYMBOLS + 1, (n,))
    frames = []
    for s in word:
        frames += [prototypes[s]] * int(torch.randint(2, 4, (1,))) + [prototypes[0]]
    frames = torch.stack((frames + [prototypes[0]] * T)[:T])
    return frames + 0.3 * torch.randn(T, DIM), word


def make_batch(n):
    xs, ws = zip(*[make_sample() for _ in range(n)])
    return torch.stack(xs, 1), torch.cat(ws), torch.tensor([len(w) for w in ws])


def greedy(log_probs):
    best = log_probs.argmax(-1).t()
    return [[int(a) for a, b in zip(row, [0, *row[:-1].tolist()]) if a != b and a != 0] for row in best]


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(DIM, 24, bidirectional=True)
        self.fc = nn.Linear(48, SYMBOLS + 1)

    def forward(self, x):
        return self.fc(self.rnn(x)[0]).log_softmax(-1)


val_x, val_t, val_len = make_batch(60)
val_words = [w.tolist() for w in val_t.split(val_len.tolist())]
model = Reader()
opt = torch.optim.Adam(model.parameters(), lr=1e-2)
ctc = nn.CTCLoss(blank=0, zero_infinity=True)
for step in range(1, 121):
    x, targets, lengths = make_batch(24)
    loss = ctc(model(x), targets, torch.full((24,), T), lengths)
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    opt.step()
    if step % 30 == 0:
        with torch.no_grad():
            right = sum(a == b for a, b in zip(greedy(model(val_x)), val_words))
        print(step, round(loss.item(), 3), "words right", right, "of 60")
