# expect: batch-of-one-with-batchnorm [run,source]
# about: batch_size=1 with BatchNorm1d after a linear layer: each channel has one value, and PyTorch refuses
# allow: no-validation
# exits: 1
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
raw = load_diabetes(scaled=False)
x = torch.tensor(raw.data, dtype=torch.float32)
y = torch.tensor(raw.target, dtype=torch.float32)[:, None]
x, y = (x - x[:350].mean(0)) / x[:350].std(0), (y - y[:350].mean()) / y[:350].std()
trainloader = DataLoader(TensorDataset(x[:350], y[:350]), batch_size=1, shuffle=True)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 16)
        self.bn1 = nn.BatchNorm1d(16)
        self.fc2 = nn.Linear(16, 1)

    def forward(self, x):
        return self.fc2(torch.relu(self.bn1(self.fc1(x))))


net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(2):
    for inputs, target in trainloader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(inputs), target)
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
