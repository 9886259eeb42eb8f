# expect: nothing
# about: batches are dicts and the model returns an object with .loss, as transformers does; CosineAnnealingLR(T_max=epochs) once an epoch
from dataclasses import dataclass

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader


@dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor


class TabularClassifier(nn.Module):
    def __init__(self, n_features, num_labels=2, hidden=24):
        super().__init__()
        self.num_labels = num_labels
        self.encoder = nn.Sequential(nn.Linear(n_features, hidden), nn.GELU(), nn.Dropout(0.1))
        self.classifier = nn.Linear(hidden, num_labels)

    def forward(self, features, labels=None):
        logits = self.classifier(self.encoder(features))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.view(-1, self.num_labels), labels.view(-1))
        return Output(loss=loss, logits=logits)


def collate(rows):
    return {"features": torch.stack([r["features"] for r in rows]), "labels": torch.tensor([r["label"] for r in rows])}


torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
X_train, X_eval, y_train, y_eval = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
mean, std = X_train.mean(0), X_train.std(0)
rows = lambda A, t: [{"features": torch.tensor((a - mean) / std, dtype=torch.float32), "label": int(v)} for a, v in zip(A, t)]
train_dataloader = DataLoader(rows(X_train, y_train), shuffle=True, batch_size=32, collate_fn=collate)
eval_dataloader = DataLoader(rows(X_eval, y_eval), batch_size=64, collate_fn=collate)
model = TabularClassifier(30)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
num_epochs = 6
lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_epochs)
for epoch in range(num_epochs):
    model.train()
    for batch in train_dataloader:
        outputs = model(**batch)
        outputs.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    lr_scheduler.step()
    model.eval()
    correct = total = 0
    for batch in eval_dataloader:
        with torch.no_grad():
            outputs = model(**batch)
        predictions = torch.argmax(outputs.logits, dim=-1)
        correct += (predictions == batch["labels"]).sum().item()
        total += batch["labels"].size(0)
    print(f"epoch {epoch}: {correct / total:.4f}")
