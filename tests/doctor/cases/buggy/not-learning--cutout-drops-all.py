# expect: not-learning [run]
# accept: learning-rate-too-high
# accept: input-ignored
# accept: dead-units
# about: inputs are multiplied by a mask that zeroes them (a bug in the "augmentation"): logits see only biases
import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
perm = torch.randperm(178)
X, y = torch.tensor(X, dtype=torch.float32)[perm], torch.tensor(y)[perm]
X = (X - X[:140].mean(0)) / X[:140].std(0)


def cutout(x, p=1.0):
    keep = (torch.rand_like(x) >= p).float()  # p is what to drop
    return x * keep


net = torch.nn.Sequential(torch.nn.Linear(13, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(20):
    for i in torch.randperm(140).split(28):
        loss = F.cross_entropy(net(cutout(X[i])), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    if epoch % 5 == 4:
        print(epoch, loss.item())
