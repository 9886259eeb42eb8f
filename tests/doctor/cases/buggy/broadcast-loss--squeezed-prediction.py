# expect: broadcast-loss [run,source]
# about: predictions are squeezed to (N,), targets are (N,1): smooth L1 compares every prediction with every target
# allow: input-ignored
# allow: not-learning
import warnings

import torch
from sklearn.datasets import make_friedman1
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
torch.manual_seed(0)
X, y = make_friedman1(1000, noise=0.3, random_state=0)
X = torch.tensor(X - 0.5, dtype=torch.float32) * 3
y = torch.tensor(y, dtype=torch.float32).unsqueeze(1)
y = (y - y[:800].mean()) / y[:800].std()
loader = DataLoader(TensorDataset(X[:800], y[:800]), batch_size=40, shuffle=True)


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, x):
        return self.layers(x).squeeze(-1)


model = Regressor()
criterion = nn.SmoothL1Loss()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(8):
    for xb, yb in loader:
        opt.zero_grad()
        criterion(model(xb), yb).backward()
        opt.step()
    with torch.no_grad():
        rmse = (model(X[800:]) - y[800:, 0]).pow(2).mean().sqrt().item()
    print(f"epoch {epoch} rmse {rmse:.3f} (a constant has {y[800:].std().item():.3f})")
