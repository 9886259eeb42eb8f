# expect: statistics-from-all-data [run]
# about: z-score by torch over all rows before the folds of a cross-validation are made
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold
from torch import nn

torch.manual_seed(0)
bunch = load_breast_cancer()
X = torch.as_tensor(bunch.data, dtype=torch.float32)
y = torch.as_tensor(bunch.target, dtype=torch.float32)
X = (X - X.mean(dim=0)) / X.std(dim=0)


def run_fold(train_idx, val_idx):
    model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train_idx = torch.as_tensor(train_idx)
    for epoch in range(3):
        model.train()
        for b in train_idx[torch.randperm(len(train_idx))].split(64):
            optimizer.zero_grad()
            out = model(X[b]).squeeze(-1)
            loss = nn.functional.binary_cross_entropy_with_logits(out, y[b])
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.inference_mode():
        return ((model(X[val_idx]).squeeze(-1) > 0).float() == y[val_idx]).float().mean().item()


scores = [run_fold(tr, va) for tr, va in StratifiedKFold(4, shuffle=True, random_state=0).split(X, y)]
print("cv accuracy", sum(scores) / len(scores))
