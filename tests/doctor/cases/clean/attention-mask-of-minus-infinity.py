# expect: nothing
# about: causal Transformer given an additive -inf mask as an input, tokens and labels in dict batches, .loss on the output
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Output:
    loss: torch.Tensor
    logits: torch.Tensor


class TinyGPT(nn.Module):
    def __init__(self, vocab=20, d=32):
        super().__init__()
        self.tok = nn.Embedding(vocab, d)
        self.pos = nn.Embedding(16, d)
        self.block = nn.TransformerEncoderLayer(d, 4, 64, dropout=0.0, batch_first=True)
        self.lm_head = nn.Linear(d, vocab)

    def forward(self, input_ids, labels, mask):
        h = self.tok(input_ids) + self.pos(torch.arange(input_ids.size(1)))
        logits = self.lm_head(self.block(h, src_mask=mask))
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return Output(loss, logits)


torch.manual_seed(0)
start = torch.randint(0, 20, (900, 1))
step = torch.randint(1, 4, (900, 1))
seqs = (start + step * torch.arange(12)) % 20
mask = torch.full((12, 12), float("-inf")).triu(1)
train, val = seqs[:800], seqs[800:]
labels = train.clone()
labels[:, :2] = -100
model = TinyGPT()
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
for epoch in range(4):
    model.train()
    for idx in torch.randperm(800).split(32):
        batch = {"input_ids": train[idx], "labels": labels[idx], "mask": mask}
        out = model(**batch)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
    model.eval()
    with torch.no_grad():
        print(epoch, out.loss.item(), model(input_ids=val, labels=val, mask=mask).loss.item())
