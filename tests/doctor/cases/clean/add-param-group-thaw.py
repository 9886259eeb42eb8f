# expect: nothing
# about: layers join the optimizer by add_param_group while they are thawed; a new block is grown and added as well
import torch
from torch import nn
from sklearn.datasets import load_digits


class Grow(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 32)
        self.blocks = nn.ModuleList()
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        for b in self.blocks:
            x = x + b(x).relu()
        return self.head(x)


torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
net = Grow()
net.stem.requires_grad_(False)
opt = torch.optim.Adam(net.head.parameters(), 5e-3)
for ep in range(5):
    if ep == 1:
        net.stem.requires_grad_(True)
        opt.add_param_group({"params": net.stem.parameters(), "lr": 2e-3})
    if ep in (2, 3):
        block = nn.Linear(32, 32)
        net.blocks.append(block)
        opt.add_param_group({"params": block.parameters()})
    for i in torch.randperm(1400)[:1000].split(50):
        opt.zero_grad()
        nn.functional.cross_entropy(net(X[i]), y[i]).backward()
        opt.step()
    with torch.no_grad():
        print(ep, (net(X[1400:]).argmax(1) == y[1400:]).float().mean().item())
