# expect: nothing
# about: ordered classes as cumulative binary targets: BCE with logits on (N, K-1), class = number of thresholds passed; no argmax
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def levels(y, k):
    return (y[:, None] > torch.arange(k - 1)[None]).float()


class CoralHead(nn.Module):
    """One shared score and K-1 biases."""

    def __init__(self, n_in, k):
        super().__init__()
        self.score = nn.Linear(n_in, 1, bias=False)
        self.bias = nn.Parameter(torch.arange(k - 1, 0, -1).float() / k - 0.5)

    def forward(self, h):
        return self.score(h) + self.bias


torch.manual_seed(0)
raw = load_diabetes(scaled=False)
perm = np.random.RandomState(0).permutation(442)
tr, te = perm[:340], perm[340:]
edges = np.quantile(raw.target[tr], [0.25, 0.5, 0.75])
grade = torch.tensor(np.digitize(raw.target, edges))
X = torch.tensor((raw.data - raw.data[tr].mean(0)) / raw.data[tr].std(0), dtype=torch.float32)
train = DataLoader(TensorDataset(X[tr], grade[tr]), batch_size=34, shuffle=True)
model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), CoralHead(16, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
criterion = nn.BCEWithLogitsLoss()
for epoch in range(12):
    for x, g in train:
        optimizer.zero_grad()
        loss = criterion(model(x), levels(g, 4))
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        guess = (model(X[te]) > 0).sum(1)
    mae = (guess - grade[te]).abs().float().mean().item()
    if epoch % 4 == 3:
        print(f"epoch {epoch} mean absolute grade error {mae:.3f}, exact {(guess == grade[te]).float().mean().item():.3f}")
