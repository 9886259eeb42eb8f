# expect: train-method-overridden [run,source]
# about: a network with its own train(loader, epochs): model.eval() calls self.train(False) and fails
# exits: 1
# allow: no-validation
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Network(nn.Module):
    def __init__(self, n_in):
        super(Network, self).__init__()
        self.hidden = nn.Linear(n_in, 16)
        self.drop = nn.Dropout(0.1)
        self.output = nn.Linear(16, 1)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=5e-3)

    def forward(self, x):
        return self.output(self.drop(torch.relu(self.hidden(x))))

    def train(self, loader, epochs):
        for _ in range(epochs):
            for x, y in loader:
                self.optimizer.zero_grad()
                nn.functional.mse_loss(self(x), y).backward()
                self.optimizer.step()


torch.manual_seed(0)
raw = load_diabetes(scaled=False)
x, y = torch.tensor(raw.data).float(), torch.tensor(raw.target).float()[:, None]
x, y = (x - x[:340].mean(0)) / x[:340].std(0), (y - y[:340].mean()) / y[:340].std()
net = Network(10)
net.train(DataLoader(TensorDataset(x[:340], y[:340]), batch_size=34, shuffle=True), epochs=6)
net.eval()
with torch.no_grad():
    print("validation", nn.functional.mse_loss(net(x[340:]), y[340:]).item())
