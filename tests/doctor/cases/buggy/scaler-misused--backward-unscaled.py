# expect: scaler-misused [run,source]
# about: the loss goes backward without scale(), then scaler.step() is called: this PyTorch refuses, older ones divide unscaled gradients
# allow: no-validation
# exits: 1
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.amp import GradScaler, autocast


class Engine:
    def __init__(self, model, lr):
        self.model = model
        self.opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        self.scaler = GradScaler("cpu")

    def step(self, x, y):
        with autocast("cpu", dtype=torch.float16):
            loss = nn.functional.cross_entropy(self.model(x), y)
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        self.scaler.step(self.opt)
        self.scaler.update()
        return loss.item()


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
engine = Engine(net, lr=0.05)
for epoch in range(4):
    net.train()
    for idx in torch.randperm(1400).split(50):
        loss = engine.step(x[idx], y[idx])
    net.eval()
    with torch.no_grad():
        print(epoch, round(loss, 4), (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
