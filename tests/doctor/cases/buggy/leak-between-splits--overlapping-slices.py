# expect: leak-between-splits [run]
# about: tabular MLP full-batch; the test slice starts 60 rows before the train slice ends
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

torch.manual_seed(1)
data = load_diabetes()
rng = np.random.RandomState(1)
order = rng.permutation(len(data.target))
features = torch.from_numpy(data.data[order]).float() * 20
targets = torch.from_numpy(data.target[order]).float()

n_train = 360
X_train, y_train = features[:n_train], targets[:n_train]
X_test, y_test = features[300:], targets[300:]
mean, std = y_train.mean(), y_train.std()
y_train_n = ((y_train - mean) / std).unsqueeze(1)

net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
optim = torch.optim.Adam(net.parameters(), lr=5e-3, weight_decay=1e-3)
loss_fn = nn.MSELoss()

step = 0
while step < 120:
    net.train()
    optim.zero_grad()
    pred = net(X_train)
    loss = loss_fn(pred, y_train_n)
    loss.backward()
    optim.step()
    step += 1
    if step % 20 == 0:
        net.eval()
        with torch.no_grad():
            guess = net(X_test).squeeze(1) * std + mean
            rmse = ((guess - y_test) ** 2).mean().sqrt()
        print(f"step {step} loss {loss.item():.3f} test rmse {rmse.item():.1f}")
