# expect: exploding-gradients [run]
# accept: non-finite-value
# accept: learning-rate-too-high
# about: a few corrupted targets (a sentinel 1e6 for "missing") make gradients of thousands of times the usual
# allow: inputs-not-scaled
# allow: not-learning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X = torch.randn(1600, 8)
y = X @ torch.randn(8, 1) + 0.1 * torch.randn(1600, 1)
y[::97] = 999999.0
loader = DataLoader(TensorDataset(X, y), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(2):
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = ((model(xb) - yb) ** 2).mean()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
