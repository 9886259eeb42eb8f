# expect: non-finite-input [run]
# about: a sensor series with gaps (NaN) fed to a GRU in dict batches
# allow: non-finite-value
# allow: not-learning
# allow: weights-do-not-move
import numpy as np
import torch
import torch.nn as nn

rng = np.random.default_rng(0)
series = np.sin(np.arange(1500) / 9) + 0.1 * rng.normal(size=1500)
series[rng.choice(1500, 6, replace=False)] = np.nan  # sensor was off


def make_samples(values, lookback=20):
    xs, ys = [], []
    for t in range(len(values) - lookback):
        if np.isnan(values[t + lookback]):
            continue
        xs.append(values[t : t + lookback])
        ys.append(values[t + lookback])
    return torch.tensor(np.array(xs), dtype=torch.float32).unsqueeze(-1), torch.tensor(np.array(ys), dtype=torch.float32)


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 16, batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, batch):
        _, h = self.gru(batch["series"])
        return self.head(h[-1]).squeeze(-1)


torch.manual_seed(0)
X, Y = make_samples(series)
model = Forecaster()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for it in range(80):
    i = torch.randint(0, 1200, (32,))
    batch = {"series": X[i], "target": Y[i]}
    loss = ((model(batch) - batch["target"]) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 20 == 0:
        print(it, loss.item())
