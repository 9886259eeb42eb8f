# expect: weights-do-not-move [run]
# about: the pretrained state is loaded at the head of every batch instead of once: each step starts from the same weights
# allow: not-learning
# allow: underfitting
import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
pretrained = copy.deepcopy(net.state_dict())
opt = torch.optim.SGD(net.parameters(), lr=0.05)
for epoch in range(4):
    for a, b in DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=40, shuffle=True):
        net.load_state_dict(pretrained)
        net.train()
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(a), b)
        loss.backward()
        opt.step()
    net.load_state_dict(pretrained)
    with torch.no_grad():
        print(epoch, round(loss.item(), 4), (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
