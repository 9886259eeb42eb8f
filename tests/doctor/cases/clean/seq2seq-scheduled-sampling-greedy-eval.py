# expect: nothing
# about: seq2seq with teacher forcing per step; argmax tokens fed back (no gradient by nature); greedy decoding in eval
import random
import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
V, BOS = 10, 9


class S2S(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.emb = nn.Embedding(V, d)
        self.enc = nn.GRU(d, d, batch_first=True)
        self.cell = nn.GRUCell(d, d)
        self.out = nn.Linear(d, V)

    def forward(self, src, tgt=None, force=0.0):
        _, h = self.enc(self.emb(src))
        h, tok, logits = h[0], torch.full((len(src),), BOS), []
        for t in range(src.shape[1]):
            h = self.cell(self.emb(tok), h)
            o = self.out(h)
            logits.append(o)
            tok = tgt[:, t] if tgt is not None and random.random() < force else o.argmax(1)
        return torch.stack(logits, 1)


net = S2S()
opt = torch.optim.Adam(net.parameters(), 1e-2)
val = torch.randint(0, 9, (100, 4))
for step in range(150):
    src = torch.randint(0, 9, (32, 4))
    net.train()
    loss = nn.functional.cross_entropy(net(src, src, force=0.7).flatten(0, 1), src.flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 29:
        net.eval()
        with torch.no_grad():
            print(step, loss.item(), (net(val).argmax(-1) == val).float().mean().item())
