# expect: nothing
# about: Poisson NLL on counts with log input: targets are integers, most of them zero, and this is no classification
import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.default_rng(3)
torch.manual_seed(3)
n = 2400
age, km, urban = rng.uniform(-1.7, 1.7, n), rng.normal(size=n), rng.integers(0, 2, n)
rate = np.exp(-0.6 + 0.5 * age + 0.4 * km + 0.5 * urban)
counts = rng.poisson(rate)
X = torch.tensor(np.c_[age, km, urban], dtype=torch.float32)
y = torch.tensor(counts, dtype=torch.float32)
train_dl = DataLoader(TensorDataset(X[:1900], y[:1900]), batch_size=76, shuffle=True)
X_val, y_val = X[1900:], y[1900:]

glm = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 1), nn.Flatten(0))
loss_fn = nn.PoissonNLLLoss(log_input=True)
opt = optim.Adam(glm.parameters(), lr=5e-3)
base = loss_fn(torch.full_like(y_val, y[:1900].mean().log().item()), y_val).item()
for epoch in range(8):
    glm.train()
    for x, k in train_dl:
        opt.zero_grad(set_to_none=True)
        loss = loss_fn(glm(x), k)
        loss.backward()
        opt.step()
    glm.eval()
    with torch.no_grad():
        val = loss_fn(glm(X_val), y_val).item()
    print(f"epoch {epoch} deviance-like loss {val:.4f}, of a constant {base:.4f}")
