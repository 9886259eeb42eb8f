# expect: nothing
# about: the model gives probabilities in eval mode and logits in train mode; validation by nll of their logarithm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        out = self.body(x)
        return out if self.training else F.softmax(out, dim=1)


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
net = Net()
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(4):
    net.train()
    for i in torch.randperm(1500).split(60):
        opt.zero_grad()
        F.cross_entropy(net(x[i]), y[i]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        p = net(x[1500:])
        print(
            epoch, F.nll_loss(p.clamp_min(1e-9).log(), y[1500:]).item(), (p.argmax(1) == y[1500:]).float().mean().item()
        )
