# expect: argmax-over-wrong-dimension [run,source]
# about: accuracy takes argmax over dim 0, the batch, and compares the ten winners with the first ten labels
# allow: metric-from-wrong-counts
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def accuracy(logits, labels):
    predicted = torch.argmax(logits, dim=0)
    return (predicted == labels[: len(predicted)]).float().mean().item()


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
train_loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
val_loader = DataLoader(TensorDataset(x[1400:1780], y[1400:1780]), batch_size=95)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(5):
    model.train()
    for images, labels in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        scores = [accuracy(model(images), labels) for images, labels in val_loader]
    print(f"epoch {epoch} val accuracy {sum(scores) / len(scores):.3f}")
