# expect: stale-optimizer [run,source]
# about: the model is deep-copied after the optimizer was made; the copy gets the gradients, the optimizer steps the original
# allow: parameters-not-optimized
# allow: parameters-without-gradient
# allow: weights-do-not-move
# allow: missing-zero-grad
# allow: not-learning
# allow: exploding-gradients
import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def prepare(model):
    """Give back a model ready to train, and leave the one of the caller untouched."""
    model = copy.deepcopy(model)
    return model.train()


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32).unsqueeze(1), torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=70, shuffle=True)
template = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
optimizer = torch.optim.Adam(template.parameters(), lr=3e-3)
model = prepare(template)
for epoch in range(4):
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(xb), yb)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        acc = (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    print(epoch, round(loss.item(), 4), round(acc, 3))
