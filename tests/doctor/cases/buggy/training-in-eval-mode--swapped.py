# expect: training-in-eval-mode [run]
# about: train() and eval() are exchanged: eval() before the training batches, train() before validation
# allow: evaluation-in-train-mode
import torch
from torch import nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
d = load_digits()
X, y = torch.tensor(d.images / 16).float()[:, None], torch.tensor(d.target)
net = nn.Sequential(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(432, 10))
opt = torch.optim.Adam(net.parameters(), 2e-3)
for ep in range(3):
    net.train(False)
    for i in torch.randperm(1400).split(50):
        opt.zero_grad()
        nn.functional.cross_entropy(net(X[i]), y[i]).backward()
        opt.step()
    net.train(True)
    with torch.no_grad():
        hits = sum((net(X[k : k + 100]).argmax(1) == y[k : k + 100]).sum().item() for k in range(1400, 1797, 100))
    print(ep, hits / 397)
