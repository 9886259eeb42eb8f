# expect: same-batch-every-step [run,source]
# about: a get_batch helper makes a new iterator of an unshuffled loader in every call and so gives the first batch for ever
# allow: overfitting
# allow: last-weights-kept
# allow: training-data-not-shuffled
import torch
from sklearn.datasets import make_friedman1
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = make_friedman1(1000, noise=0.3, random_state=0)
X, y = torch.tensor((X - 0.5) * 3.4).float(), torch.tensor(y).float()[:, None]
y = (y - y[:800].mean()) / y[:800].std()
loader = DataLoader(TensorDataset(X[:800], y[:800]), batch_size=25)


def get_batch():
    for batch in loader:
        return batch


model = nn.Sequential(nn.Linear(10, 32), nn.SiLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(160):
    xb, yb = get_batch()
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(xb), yb)
    loss.backward()
    optimizer.step()
    if step % 40 == 39:
        with torch.no_grad():
            print(step + 1, "train", round(loss.item(), 4), "val", round(nn.functional.mse_loss(model(X[800:]), y[800:]).item(), 4))
