# expect: loss-is-constant [run]
# about: the loss is clamped to at most 0.5 "for stability" and starts above: it is 0.5 in every step and its gradient is zero
# allow: weights-do-not-move
# allow: not-learning
# allow: parameters-without-gradient
# allow: initial-loss-off
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
opt = torch.optim.Adam(model.parameters(), lr=2e-3)


def stable_loss(out, target, limit=0.5):
    return torch.clamp(nn.functional.cross_entropy(out, target), max=limit)


for epoch in range(4):
    for a, b in loader:
        loss = stable_loss(model(a), b)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, "loss", loss.item(), "acc", (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
