# expect: best-weights-not-copied [run,source]
# about: best_state = model.state_dict() keeps the live tensors; loading "the best" at the end loads the last
# allow: last-weights-kept
# allow: overfitting
import torch
from sklearn.datasets import make_classification
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = make_classification(800, 30, n_informative=5, flip_y=0.2, random_state=0)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
train = DataLoader(TensorDataset(X[:200], y[:200]), batch_size=20, shuffle=True)
xv, yv, xt, yt = X[200:500], y[200:500], X[500:], y[500:]
model = nn.Sequential(nn.Linear(30, 96), nn.ReLU(), nn.Dropout(0.1), nn.Linear(96, 2))
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
best_loss, best_state, best_epoch = float("inf"), None, 0


def loss_on(a, b):
    model.eval()
    with torch.no_grad():
        return nn.functional.cross_entropy(model(a), b).item()


for epoch in range(15):
    model.train()
    for a, b in train:
        opt.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        opt.step()
    val = loss_on(xv, yv)
    if val < best_loss:
        best_loss, best_epoch = val, epoch
        best_state = model.state_dict()
model.load_state_dict(best_state)
print(f"best epoch {best_epoch} val {best_loss:.4f}; after restoring it val {loss_on(xv, yv):.4f} test {loss_on(xt, yt):.4f}")
