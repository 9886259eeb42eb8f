# expect: nothing
# about: parametrized weights (weight_norm): the module's weight is computed, the optimizer holds its parts
import numpy as np
import torch
from sklearn.datasets import make_friedman1
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

torch.manual_seed(0)
np.random.seed(0)
X, y = make_friedman1(900, n_features=8, noise=0.5, random_state=0)
X_tr, X_va, y_tr, y_va = X[:700], X[700:], y[:700], y[700:]
y_mean, y_std = y_tr.mean(), y_tr.std()
to = lambda a: torch.from_numpy(a.astype(np.float32))
x_tr, x_va = to((X_tr - 0.5) * 3.4), to((X_va - 0.5) * 3.4)
t_tr, t_va = to((y_tr - y_mean) / y_std).unsqueeze(1), to((y_va - y_mean) / y_std).unsqueeze(1)

model = nn.Sequential(
    weight_norm(nn.Linear(8, 32)), nn.SiLU(),
    weight_norm(nn.Linear(32, 32)), nn.SiLU(),
    weight_norm(nn.Linear(32, 1)),
)
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
loss_fn = nn.MSELoss()
for epoch in range(15):
    model.train()
    order = np.random.permutation(len(x_tr))
    for start in range(0, len(order), 50):
        take = order[start : start + 50]
        opt.zero_grad()
        loss_fn(model(x_tr[take]), t_tr[take]).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        rmse = loss_fn(model(x_va), t_va).sqrt().item() * y_std
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}: validation rmse {rmse:.3f} (spread {y_va.std():.3f})")
