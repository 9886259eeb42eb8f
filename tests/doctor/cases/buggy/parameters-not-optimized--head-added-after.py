# expect: parameters-not-optimized [run,source]
# about: the optimizer is made from the body's parameters; the head set afterwards gets gradients but never moves
# allow: missing-zero-grad
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
mu, sd = a.mean(0), a.std(0)
a, b = torch.tensor((a - mu) / sd).float(), torch.tensor((b - mu) / sd).float()
ya, yb = torch.tensor(ya), torch.tensor(yb)


class Net(nn.Module):
    def __init__(self, n_in, hidden):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU())
        self.hidden = hidden

    def add_head(self, classes):
        self.head = nn.Linear(self.hidden, classes)
        return self

    def forward(self, x):
        return self.head(self.body(x))


net = Net(13, 16)
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
net.add_head(int(y.max()) + 1)
before = net.head.weight.detach().clone()
for epoch in range(20):
    for rows in torch.randperm(len(a)).split(31):
        opt.zero_grad()
        nn.functional.cross_entropy(net(a[rows]), ya[rows]).backward()
        opt.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            print(epoch, (net(b).argmax(1) == yb).float().mean().item(), "head moved:", not torch.equal(before, net.head.weight))
