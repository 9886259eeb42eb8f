# expect: initial-loss-off [run]
# about: the last layer starts with weights of standard deviation 2: the first loss is ten times that of a guess
# allow: learning-rate-too-high
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Head(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.weight = nn.Parameter(2.0 * torch.randn(o, i))
        self.bias = nn.Parameter(torch.zeros(o))

    def forward(self, h):
        return nn.functional.linear(h, self.weight, self.bias)


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32) * 2 - 0.6, torch.tensor(d.target)
dl = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), Head(256, 10))
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(5):
    for i, (a, b) in enumerate(dl):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(a), b)
        if epoch == i == 0:
            print("first loss", loss.item(), "of a guess", torch.tensor(10.0).log().item())
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, nn.functional.cross_entropy(model(x[1400:]), y[1400:]).item())
