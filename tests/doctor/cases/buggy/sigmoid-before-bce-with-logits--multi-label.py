# expect: sigmoid-before-bce-with-logits [run,source]
# about: multi-label tags: torch.sigmoid in the forward, then F.binary_cross_entropy_with_logits
# allow: not-learning
# allow: output-range-too-small
import torch
import torch.nn.functional as F
from sklearn.datasets import make_multilabel_classification
from torch import nn


class Tagger(nn.Module):
    def __init__(self, n_features, n_tags):
        super().__init__()
        self.hidden = nn.Linear(n_features, 32)
        self.tags = nn.Linear(32, n_tags)

    def forward(self, x):
        return torch.sigmoid(self.tags(F.relu(self.hidden(x))))


torch.manual_seed(0)
X, Y = make_multilabel_classification(1500, 15, n_classes=5, random_state=0)
X, Y = torch.tensor(X, dtype=torch.float32), torch.tensor(Y, dtype=torch.float32)
X = (X - X[:1200].mean(0)) / X[:1200].std(0)
model = Tagger(15, 5)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
for epoch in range(8):
    for idx in torch.randperm(1200).split(60):
        scores = model(X[idx])
        loss = F.binary_cross_entropy_with_logits(scores, Y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        val = model(X[1200:])
        exact = ((val > 0.5).float() == Y[1200:]).float().mean().item()
    print(f"epoch {epoch} loss {F.binary_cross_entropy_with_logits(val, Y[1200:]).item():.4f} tag accuracy {exact:.3f}")
