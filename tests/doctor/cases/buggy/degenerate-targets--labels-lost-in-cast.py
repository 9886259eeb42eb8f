# expect: degenerate-targets [run]
# about: labels made by int() of a normalised score: all of them become 0
# allow: not-learning
# allow: input-ignored
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, Dataset


class CancerDataset(Dataset):
    def __init__(self, lo, hi):
        raw = load_breast_cancer()
        X = torch.tensor(raw.data, dtype=torch.float32)
        self.X = ((X - X[:400].mean(0)) / X[:400].std(0))[lo:hi]
        self.scores = (torch.tensor(raw.target) * 0.9 + 0.05)[lo:hi]

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], int(self.scores[i])


torch.manual_seed(0)
train_loader = DataLoader(CancerDataset(0, 400), batch_size=25, shuffle=True)
val_loader = DataLoader(CancerDataset(400, 569), batch_size=169)
model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(5):
    model.train()
    for xb, yb in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(xb), yb)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for xb, yb in val_loader:
            print(epoch, loss.item(), "val acc", (model(xb).argmax(1) == yb).float().mean().item())
