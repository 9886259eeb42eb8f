# expect: frozen-batchnorm-moves [run]
# about: freeze_bn sets requires_grad=False on BatchNorm's weight and bias and forgets eval()
import torch
from torch import nn
from sklearn.datasets import load_digits


def freeze_bn(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.requires_grad = False
            module.bias.requires_grad = False


torch.manual_seed(0)
d = load_digits()
X, y = torch.tensor(d.images / 16).float()[:, None], torch.tensor(d.target)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


def epoch(lr, inputs):
    opt = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr)
    net.train()
    for i in torch.randperm(1400).split(50):
        opt.zero_grad()
        nn.functional.cross_entropy(net(inputs[i]), y[i]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print((net(inputs[1400:]).argmax(1) == y[1400:]).float().mean().item())


epoch(3e-3, X)
freeze_bn(net)
epoch(1e-3, 1 - X)
