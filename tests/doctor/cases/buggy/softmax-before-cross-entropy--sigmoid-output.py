# expect: softmax-before-cross-entropy [run,source]
# about: the output layer has a sigmoid (as in the binary case before) and the loss is cross-entropy over ten classes
# allow: not-learning
# allow: output-range-too-small
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def mlp(sizes, last=nn.Sigmoid):
    parts = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        parts += [nn.Linear(a, b), nn.ReLU() if i < len(sizes) - 2 else last()]
    return nn.Sequential(*parts)


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
net = mlp([64, 48, 10])
loss_fn = nn.CrossEntropyLoss()
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(6):
    for a, b in train:
        opt.zero_grad()
        loss = loss_fn(net(a), b)
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, "val loss", loss_fn(net(x[1400:]), y[1400:]).item(), "(cannot go below 1.46)")
