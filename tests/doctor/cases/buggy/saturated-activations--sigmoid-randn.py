# expect: saturated-activations [run]
# about: weights are drawn by randn without scaling over 96 inputs: the sigmoid units sit at 0 or 1
# allow: vanishing-gradients
# allow: initial-loss-off
# allow: exploding-gradients
# allow: learning-rate-too-low
import torch
from sklearn.datasets import make_classification
from torch import nn

torch.manual_seed(1)
X, y = make_classification(1500, 96, n_informative=12, n_redundant=0, random_state=1)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
X = (X - X[:1200].mean(0)) / X[:1200].std(0)
W1, b1 = nn.Parameter(3 * torch.randn(96, 64)), nn.Parameter(torch.zeros(64))
W2, b2 = nn.Parameter(0.1 * torch.randn(64, 2)), nn.Parameter(torch.zeros(2))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.W1, self.b1, self.W2, self.b2 = W1, b1, W2, b2
        self.act = nn.Sigmoid()

    def forward(self, x):
        return self.act(x @ self.W1 + self.b1) @ self.W2 + self.b2


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
for epoch in range(6):
    for rows in torch.randperm(1200).split(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        h = torch.sigmoid(X[1200:] @ W1 + b1)
        ends = ((h < 0.02) | (h > 0.98)).float().mean().item()
        print(epoch, f"at the ends {ends:.2f} acc {(net(X[1200:]).argmax(1) == y[1200:]).float().mean().item():.3f}")
