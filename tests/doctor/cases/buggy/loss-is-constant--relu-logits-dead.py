# expect: loss-is-constant [run]
# accept: weights-do-not-move
# accept: dead-units
# accept: not-learning
# accept: input-ignored
# about: a ReLU behind the last layer whose bias is very low: the logits are all zero, the loss is ln 4 for ever
import torch
from sklearn.datasets import make_blobs
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = make_blobs(600, centers=4, n_features=5, random_state=2)
X = torch.tensor(X / 10, dtype=torch.float32)
dl = DataLoader(TensorDataset(X, torch.tensor(y)), batch_size=30, shuffle=True)
net = nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 4), nn.ReLU())
nn.init.constant_(net[2].bias, -6.0)
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(5):
    for xb, yb in dl:
        loss = nn.functional.cross_entropy(net(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item())
