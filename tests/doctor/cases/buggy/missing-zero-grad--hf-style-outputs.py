# expect: missing-zero-grad [run,source]
# about: outputs.loss.backward(); optimizer.step() and no zero_grad anywhere
# allow: learning-rate-too-high
# allow: exploding-gradients
# allow: not-learning
# allow: input-ignored
from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.data import DataLoader

torch.manual_seed(0)
rows = [{"input_ids": torch.randint(0, 40, (10,))} for _ in range(1500)]
for r in rows:
    r["labels"] = ((r["input_ids"] < 12).sum() > 2).long()


class TinyBert(nn.Module):
    def __init__(self, d=24):
        super().__init__()
        self.embeddings = nn.Embedding(40, d)
        self.layer = nn.Linear(d, d)
        self.classifier = nn.Linear(d, 2)

    def forward(self, input_ids, labels=None):
        h = torch.tanh(self.layer(self.embeddings(input_ids))).mean(1)
        logits = self.classifier(h)
        return SimpleNamespace(logits=logits, loss=None if labels is None else nn.functional.cross_entropy(logits, labels))


train_dataloader = DataLoader(rows[:1200], shuffle=True, batch_size=40)
eval_dataloader = DataLoader(rows[1200:], batch_size=100)
model = TinyBert()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(5):
    model.train()
    for batch in train_dataloader:
        outputs = model(**batch)
        outputs.loss.backward()
        optimizer.step()
    model.eval()
    hits = 0
    for batch in eval_dataloader:
        with torch.no_grad():
            outputs = model(**batch)
        hits += (outputs.logits.argmax(-1) == batch["labels"]).sum().item()
    print(epoch, hits / 300)
