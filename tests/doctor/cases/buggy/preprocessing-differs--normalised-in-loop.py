# expect: preprocessing-differs [run,source]
# about: batches are normalised inside the training loop; validation goes without
# allow: inputs-not-scaled
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(X, y, test_size=0.35, stratify=y, random_state=0)
Xt, Xv = torch.tensor(Xt, dtype=torch.float32), torch.tensor(Xv, dtype=torch.float32)
mean, std = Xt.mean(0), Xt.std(0)
trainloader = DataLoader(TensorDataset(Xt, torch.tensor(yt)), batch_size=16, shuffle=True)
valloader = DataLoader(TensorDataset(Xv, torch.tensor(yv)), batch_size=32)
model = nn.Sequential(nn.Linear(13, 24), nn.ReLU(), nn.Linear(24, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(12):
    model.train()
    for x, t in trainloader:
        x = (x - mean) / std
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
    model.eval()
    good = 0
    with torch.no_grad():
        for x, t in valloader:
            good += (model(x).argmax(1) == t).sum().item()
    print(epoch, round(loss.item(), 4), "val acc", round(good / len(Xv), 3))
