# expect: nothing
# about: online learning with batch_size=1 and LayerNorm: noisy single-sample losses, no batch statistics
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
m, s = Xt.mean(0), Xt.std(0)
wrap = lambda A, t: TensorDataset(torch.tensor((A - m) / s).float(), torch.tensor(t).float())
online = DataLoader(wrap(Xt, yt), batch_size=1, shuffle=True)
held = DataLoader(wrap(Xv, yv), batch_size=1)
model = nn.Sequential(nn.Linear(30, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
optimizer = torch.optim.SGD(model.parameters(), lr=5e-3)
criterion = nn.BCEWithLogitsLoss()
for epoch in range(3):
    model.train()
    for sample, label in online:
        optimizer.zero_grad()
        criterion(model(sample), label).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        hits = sum(float((model(a) > 0) == b) for a, b in held)
    print(f"pass {epoch}: {hits / len(yv):.3f}")
