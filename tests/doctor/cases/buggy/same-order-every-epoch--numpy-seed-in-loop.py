# expect: same-order-every-epoch [run,source]
# about: np.random.seed(0) inside the epoch function: the permutation is drawn anew and is always the same
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def epoch(model, opt, x, y, batch=50):
    np.random.seed(0)  # reproducible
    order = np.random.permutation(len(x))
    for k in range(0, len(x), batch):
        rows = order[k : k + batch]
        opt.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        opt.step()
    return order[:5]


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for e in range(6):
    model.train()
    first = epoch(model, opt, x[:1400], y[:1400])
    model.eval()
    with torch.no_grad():
        print(e, "first rows", first.tolist(), "acc", (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
