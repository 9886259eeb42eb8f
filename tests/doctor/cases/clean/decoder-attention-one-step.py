# expect: nothing
# about: attention over a single step (softmax over one value) inside a decoder's first step; the sequence then grows
import torch
import torch.nn.functional as F
from torch import nn


class Seq2Seq(nn.Module):
    def __init__(self, vocab=12, d=32):
        super().__init__()
        self.src, self.tgt = nn.Embedding(vocab, d), nn.Embedding(vocab, d)
        self.enc, self.dec = nn.GRU(d, d, batch_first=True), nn.GRUCell(d, d)
        self.out = nn.Linear(2 * d, vocab)

    def forward(self, src, tgt):
        memory, h = self.enc(self.src(src))
        h, past, logits = h[0], [], []
        for t in range(tgt.size(1)):
            h = self.dec(self.tgt(tgt[:, t]), h)
            past.append(h)
            states = torch.stack(past, 1)  # (N, t + 1, D): one at first
            w = F.softmax((states @ h.unsqueeze(-1)).squeeze(-1), dim=1)
            own = (w.unsqueeze(-1) * states).sum(1)
            a = F.softmax((memory @ h.unsqueeze(-1)).squeeze(-1), dim=-1)
            logits.append(self.out(torch.cat([own, (a.unsqueeze(-1) * memory).sum(1)], -1)))
        return torch.stack(logits, 1)


torch.manual_seed(0)
model = Seq2Seq()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(120):
    src = torch.randint(1, 12, (48, 6))
    tgt_out = src.flip(1)
    tgt_in = torch.cat([torch.zeros(48, 1, dtype=torch.long), tgt_out[:, :-1]], 1)
    logits = model(src, tgt_in)
    loss = F.cross_entropy(logits.flatten(0, 1), tgt_out.flatten())
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    if step % 20 == 0:
        print(step, loss.item())
