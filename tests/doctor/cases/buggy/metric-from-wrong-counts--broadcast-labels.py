# expect: metric-from-wrong-counts [run,source]
# about: predictions (N,) are compared with labels (N,1): the sum counts N*N pairs and accuracy is far above 1
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
mean, std = Xt.mean(0), Xt.std(0)


def make(A, t, shuffle):
    data = TensorDataset(torch.tensor((A - mean) / std).float(), torch.tensor(t).float().view(-1, 1))
    return DataLoader(data, batch_size=30, shuffle=shuffle)


train_loader, val_loader = make(Xt, yt, True), make(Xv, yv, False)
model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(6):
    model.train()
    for x, t in train_loader:
        optimizer.zero_grad()
        criterion(model(x), t).backward()
        optimizer.step()
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for x, t in val_loader:
            predicted = (torch.sigmoid(model(x)) > 0.5).float().squeeze()
            correct += (predicted == t).sum().item()
            total += t.size(0)
    print(f"epoch {epoch} accuracy {correct / total:.2f}")
