# expect: no-validation [run,source]
# about: ten epochs on everything there is; nothing is held out and nothing is measured but the training loss
import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
wine = load_wine()
X = torch.tensor((wine.data - wine.data.mean(0)) / wine.data.std(0), dtype=torch.float32)
loader = DataLoader(TensorDataset(X, torch.tensor(wine.target)), batch_size=16, shuffle=True)
net = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
for epoch in range(10):
    running_loss = 0.0
    for data in loader:
        inputs, labels = data
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item() * len(labels)
    print(f"epoch {epoch + 1} loss {running_loss / len(wine.target):.4f}")
