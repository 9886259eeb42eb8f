# expect: targets-out-of-range [run]
# about: targets -1 and +1 in BCEWithLogitsLoss, which takes them without a word; the loss goes below zero
# allow: learning-rate-too-high
# allow: exploding-gradients
import torch
from sklearn.datasets import make_blobs
from torch import nn

torch.manual_seed(0)
X, y = make_blobs(500, centers=2, n_features=6, cluster_std=3.0, random_state=7)
X = torch.tensor((X - X[:400].mean(0)) / X[:400].std(0), dtype=torch.float32)
target = torch.tensor(2.0 * y - 1.0, dtype=torch.float32)


class LogisticRegression(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, 1)

    def forward(self, x):
        return self.linear(x).flatten()


clf = LogisticRegression(6)
bce = nn.BCEWithLogitsLoss()
sgd = torch.optim.SGD(clf.parameters(), lr=0.1)
for epoch in range(15):
    perm = torch.randperm(400)
    for k in range(0, 400, 50):
        b = perm[k : k + 50]
        sgd.zero_grad()
        out = bce(clf(X[b]), target[b])
        out.backward()
        sgd.step()
    with torch.no_grad():
        acc = (clf(X[400:]).sign() == target[400:]).float().mean()
    print(epoch, out.item(), acc.item())
