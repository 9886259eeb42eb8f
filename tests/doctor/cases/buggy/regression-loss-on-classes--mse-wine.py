# expect: regression-loss-on-classes [run,source]
# about: three species as 0, 1, 2 under MSE with one output, accuracy by thresholds
# allow: not-learning
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
Xa, Xb, ya, yb = train_test_split(X, y, stratify=y, random_state=1)
sc = StandardScaler().fit(Xa)
Xa, Xb = torch.tensor(sc.transform(Xa)).float(), torch.tensor(sc.transform(Xb)).float()
ya, yb = torch.tensor(ya), torch.tensor(yb)
model = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 1))
criterion = nn.MSELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(20):
    for idx in torch.randperm(len(Xa)).split(19):
        optimizer.zero_grad()
        loss = criterion(model(Xa[idx]), ya[idx].view(-1, 1).float())
        loss.backward()
        optimizer.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            accuracy = (model(Xb).flatten().round() == yb).float().mean().item()
        print(epoch, round(loss.item(), 4), "accuracy", round(accuracy, 3))
