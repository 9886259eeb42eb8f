# expect: training-in-eval-mode [run,source]
# about: an evaluation every 40 steps leaves the model in eval mode; the steps after it train without dropout and with BatchNorm at rest
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 3)
        self.bn = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.4)
        self.fc = nn.Linear(108, 10)

    def forward(self, t):
        t = torch.max_pool2d(torch.relu(self.bn(self.conv(t))), 2)
        return self.fc(self.drop(t.flatten(1)))


def evaluate(net):
    net.eval()
    with torch.no_grad():
        return nn.functional.cross_entropy(net(x[1400:]), y[1400:]).item()


net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
net.train()
for step in range(1, 201):
    idx = torch.randint(0, 1400, (32,))
    opt.zero_grad()
    loss = nn.functional.cross_entropy(net(x[idx]), y[idx])
    loss.backward()
    opt.step()
    if step % 40 == 0:
        print(step, round(evaluate(net), 4), "training:", net.training)
