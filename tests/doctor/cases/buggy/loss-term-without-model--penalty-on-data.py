# expect: loss-term-without-model [run,source]
# about: a weight penalty is summed over p.data, so the term has no gradient and penalises nothing
# allow: overfitting
import torch
from sklearn.datasets import make_regression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def l1_penalty(model):
    return sum(p.data.abs().sum() for p in model.parameters())


torch.manual_seed(0)
X, y = make_regression(700, 40, n_informative=5, noise=20.0, random_state=0)
X, y = torch.tensor(X).float(), torch.tensor(y).float()[:, None]
y = (y - y[:500].mean()) / y[:500].std()
loader = DataLoader(TensorDataset(X[:500], y[:500]), batch_size=25, shuffle=True)
model = nn.Linear(40, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
lam = 0.02
for epoch in range(8):
    for xb, yb in loader:
        mse = nn.functional.mse_loss(model(xb), yb)
        loss = mse + lam * l1_penalty(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        val = nn.functional.mse_loss(model(X[500:]), y[500:]).item()
    print(f"epoch {epoch} val {val:.4f} penalty {l1_penalty(model).item():.3f} small weights {(model.weight.abs() < 0.01).sum().item()} of 40")
