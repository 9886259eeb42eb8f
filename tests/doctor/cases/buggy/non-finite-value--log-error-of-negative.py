# expect: non-finite-value [run]
# about: a log error (RMSLE) of predictions that may fall below -1: the logarithm gives NaN and the weights follow
# allow: not-learning
import torch
from sklearn.datasets import make_friedman1
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class RMSLELoss(nn.Module):
    def forward(self, pred, actual):
        return torch.sqrt(nn.functional.mse_loss(torch.log(pred + 1), torch.log(actual + 1)))


torch.manual_seed(1)
X, y = make_friedman1(900, noise=1.0, random_state=1)
X = torch.tensor((X - 0.5) * 3.4).float()
y = torch.tensor(y).float().clamp(min=0)[:, None]
loader = DataLoader(TensorDataset(X[:700], y[:700]), batch_size=35, shuffle=True)
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
nn.init.normal_(model[-1].weight, std=0.6)
criterion = RMSLELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(5):
    for a, b in loader:
        optimizer.zero_grad()
        loss = criterion(model(a), b)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(epoch, "loss", loss.item(), "val", criterion(model(X[700:]), y[700:]).item())
