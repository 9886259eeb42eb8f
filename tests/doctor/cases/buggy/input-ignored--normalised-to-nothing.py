# expect: input-ignored [run]
# accept: not-learning
# accept: dead-units
# about: LayerNorm over a dimension of size one: x - mean is 0 for every sample
import torch
from sklearn.datasets import make_regression
from torch import nn

torch.manual_seed(0)
X, y = make_regression(800, 1, noise=4.0, random_state=0)
X = torch.tensor(X, dtype=torch.float32)
y = torch.tensor(y / y.std(), dtype=torch.float32).unsqueeze(1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(1)
        self.f = nn.Sequential(nn.Linear(1, 32), nn.GELU(), nn.Linear(32, 1))

    def forward(self, x):
        return self.f(self.norm(x))


net = Net()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(8):
    for i in torch.randperm(640).split(40):
        loss = nn.functional.mse_loss(net(X[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, nn.functional.mse_loss(net(X[640:]), y[640:]).item())
