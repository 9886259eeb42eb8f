# expect: symmetric-initialisation [run,source]
# about: a hand-written init puts 0.05 into all convolution and linear weights but the last: all channels are one channel
import torch
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(128, 10)
        for name, p in self.named_parameters():
            if name.startswith("conv"):
                p.data.fill_(0.05 if name.endswith("weight") else 0.0)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.fc(x.flatten(1))


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
net = Net()
net.fc.weight.data = net.fc.weight.data[:, :16].repeat(1, 8)
opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
for epoch in range(4):
    for i in torch.randperm(1400).split(50):
        opt.zero_grad()
        nn.functional.cross_entropy(net(x[i]), y[i]).backward()
        opt.step()
    with torch.no_grad():
        spread = net.conv1.weight.std(0).max().item()
        print(epoch, "acc", (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item(), "spread between channels", spread)
