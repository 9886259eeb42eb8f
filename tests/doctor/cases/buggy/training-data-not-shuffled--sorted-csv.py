# expect: training-data-not-shuffled [run,source]
# about: rows of iris come sorted by class, the training loader forgets shuffle=True
# allow: statistics-from-all-data
import torch
import torch.nn as nn
from sklearn.datasets import load_iris
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
iris = load_iris()
X = torch.tensor(iris.data, dtype=torch.float32)
y = torch.tensor(iris.target)
keep = torch.arange(len(X)) % 5 != 0
train_ds = TensorDataset(X[keep], y[keep])
test_ds = TensorDataset(X[~keep], y[~keep])
train_loader = DataLoader(train_ds, batch_size=8)
test_loader = DataLoader(test_ds, batch_size=30)

model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for epoch in range(8):
    running = 0.0
    for inputs, labels in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        running += loss.item()
    with torch.no_grad():
        acc = sum((model(a).argmax(1) == b).sum().item() for a, b in test_loader) / len(test_ds)
    print("epoch", epoch, "loss", running / len(train_loader), "test acc", acc)
