# expect: detached-loss [run,source]
# about: an error weighted in numpy is made a tensor again with requires_grad=True: the model is not behind it
# allow: weights-do-not-move
# allow: parameters-without-gradient
# allow: not-learning
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

torch.manual_seed(0)
raw = load_diabetes(scaled=False)
perm = np.random.RandomState(0).permutation(442)
tr, va = perm[:350], perm[350:]
X = torch.tensor((raw.data - raw.data[tr].mean(0)) / raw.data[tr].std(0), dtype=torch.float32)
t = (raw.target - raw.target[tr].mean()) / raw.target[tr].std()


class WeightedError(nn.Module):
    def forward(self, prediction, target):
        weight = np.where(target > 0, 2.0, 1.0)
        error = prediction.detach().numpy() - target
        value = float((weight * error**2).mean())
        return torch.tensor(value, requires_grad=True)


model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
criterion = WeightedError()
for epoch in range(8):
    for rows in np.array_split(np.random.RandomState(epoch).permutation(tr), 10):
        optimizer.zero_grad()
        loss = criterion(model(X[rows]).squeeze(1), t[rows])
        loss.backward()
        optimizer.step()
    print(epoch, "val", criterion(model(X[va]).squeeze(1), t[va]).item())
