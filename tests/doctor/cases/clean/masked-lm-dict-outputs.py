# expect: nothing
# about: an HF-like model that returns an object with .loss and .logits, batches are dicts, -100 in the labels, a linear schedule
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader


@dataclass
class MaskedLMOutput:
    loss: torch.Tensor | None
    logits: torch.Tensor


class TinyBertForMaskedLM(nn.Module):
    def __init__(self, vocab=22, d=32):
        super().__init__()
        self.embeddings = nn.Embedding(vocab, d)
        self.position = nn.Embedding(12, d)
        self.encoder = nn.TransformerEncoderLayer(d, 4, 64, dropout=0.1, batch_first=True)
        self.cls = nn.Linear(d, vocab)

    def forward(self, input_ids, attention_mask=None, labels=None):
        h = self.embeddings(input_ids) + self.position.weight[: input_ids.size(1)]
        h = self.encoder(h, src_key_padding_mask=attention_mask == 0)
        logits = self.cls(h)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), labels.view(-1), ignore_index=-100)
        return MaskedLMOutput(loss=loss, logits=logits)


def collate(rows):
    ids = torch.stack(rows)
    mask = torch.rand(ids.shape) < 0.25
    mask[:, 3] = True
    return {
        "input_ids": ids.masked_fill(mask, 1),
        "attention_mask": torch.ones_like(ids),
        "labels": ids.masked_fill(~mask, -100),
    }


torch.manual_seed(0)
start = torch.randint(0, 20, (640, 1))
sentences = (start + torch.arange(12)) % 20 + 2
loader = DataLoader(list(sentences[:512]), batch_size=32, shuffle=True, collate_fn=collate)
val_loader = DataLoader(list(sentences[512:]), batch_size=64, collate_fn=collate)
model = TinyBertForMaskedLM()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=6 * len(loader))
for epoch in range(6):
    model.train()
    for batch in loader:
        outputs = model(**batch)
        outputs.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        losses = [model(**b).loss.item() for b in val_loader]
    print({"epoch": epoch, "eval_loss": sum(losses) / len(losses)})
