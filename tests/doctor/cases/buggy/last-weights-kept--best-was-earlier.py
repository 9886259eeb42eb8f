# expect: last-weights-kept [run,source]
# about: validation is best early and gets worse; nothing is kept of that epoch and the last weights are used for the test
# allow: overfitting
import torch
from sklearn.datasets import make_classification
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = make_classification(700, 30, n_informative=4, flip_y=0.25, random_state=3)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
train = DataLoader(TensorDataset(X[:150], y[:150]), batch_size=15, shuffle=True)
val_x, val_y, test_x, test_y = X[150:450], y[150:450], X[450:], y[450:]
model = nn.Sequential(nn.Linear(30, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
history = []
for epoch in range(25):
    model.train()
    for a, b in train:
        opt.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        history.append(nn.functional.cross_entropy(model(val_x), val_y).item())
print("best epoch", history.index(min(history)), "with", round(min(history), 4), "last", round(history[-1], 4))
model.eval()
with torch.no_grad():
    print("test loss with the last weights", nn.functional.cross_entropy(model(test_x), test_y).item())
