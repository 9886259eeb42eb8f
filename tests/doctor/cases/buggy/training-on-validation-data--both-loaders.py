# expect: training-on-validation-data [run,source]
# about: the epoch function is called with both loaders and always steps: the optimizer argument was not made optional
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def run_epoch(model, loader, optimizer, criterion):
    total = right = n = 0
    for x, y in loader:
        out = model(x)
        loss = criterion(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
        right += (out.argmax(1) == y).sum().item()
        n += len(y)
    return total / n, right / n


torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, stratify=y, test_size=0.35, random_state=0)
m, s = a.mean(0), a.std(0)
t = lambda v: torch.tensor((v - m) / s, dtype=torch.float32)
train_loader = DataLoader(TensorDataset(t(a), torch.tensor(ya)), batch_size=16, shuffle=True)
valid_loader = DataLoader(TensorDataset(t(b), torch.tensor(yb)), batch_size=16)
model = nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
criterion = nn.CrossEntropyLoss()
for epoch in range(8):
    model.train()
    train_loss, train_acc = run_epoch(model, train_loader, optimizer, criterion)
    model.eval()
    valid_loss, valid_acc = run_epoch(model, valid_loader, optimizer, criterion)
    print(f"epoch {epoch} train {train_loss:.3f}/{train_acc:.3f} valid {valid_loss:.3f}/{valid_acc:.3f}")
