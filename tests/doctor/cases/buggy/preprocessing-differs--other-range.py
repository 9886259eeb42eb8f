# expect: preprocessing-differs [run,source]
# about: training images run from -1 to 1, test images from 0 to 255, as another function read them
# allow: inputs-not-scaled
import torch
from sklearn.datasets import load_digits
from torch import nn


def load_train():
    d = load_digits()
    return torch.tensor(d.images[:1400] / 8.0 - 1.0, dtype=torch.float32)[:, None], torch.tensor(d.target[:1400])


def load_test():
    d = load_digits()
    return torch.tensor(d.images[1400:] * 15.9, dtype=torch.float32)[:, None], torch.tensor(d.target[1400:])


torch.manual_seed(0)
(x, y), (tx, ty) = load_train(), load_test()
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 10))
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
for epoch in range(4):
    net.train()
    for i in torch.randperm(1400).split(50):
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        out = [net(b) for b in tx.split(100)]
        print(epoch, "train loss", round(loss.item(), 3), "test acc", (torch.cat(out).argmax(1) == ty).float().mean().item())
