# expect: accumulation-tail-dropped [run,source]
# about: 27 microbatches in windows of five; zero_grad at the epoch's head throws the last two away
import torch
from sklearn.datasets import make_friedman1
from torch import nn

torch.manual_seed(0)
X, y = make_friedman1(1100, noise=0.5, random_state=0)
X, y = torch.tensor((X - 0.5) * 3.4).float(), torch.tensor(y).float()[:, None]
y = (y - y[:864].mean()) / y[:864].std()
model = nn.Sequential(nn.Linear(10, 32), nn.SiLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
k = 5
for epoch in range(8):
    optimizer.zero_grad()
    i = 0
    for rows in torch.randperm(864).split(32):
        (nn.functional.mse_loss(model(X[rows]), y[rows]) / k).backward()
        i += 1
        if i == k:
            optimizer.step()
            optimizer.zero_grad()
            i = 0
    with torch.no_grad():
        print(epoch, "left over", i, "val", round(nn.functional.mse_loss(model(X[864:]), y[864:]).item(), 4))
