# expect: symmetric-initialisation [run]
# about: model.apply with constant_(0.05) for conv and linear weights
# allow: not-learning
# allow: input-ignored
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class LeNetish(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.fc1 = nn.Linear(6 * 16, 32)
        self.fc2 = nn.Linear(32, 10)
        self.apply(self._init)

    @staticmethod
    def _init(m):
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            nn.init.constant_(m.weight, 0.05)
            nn.init.zeros_(m.bias)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1500], y[:1500]), batch_size=75, shuffle=True)
net = LeNetish()
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
for epoch in range(4):
    for xb, yb in loader:
        opt.zero_grad()
        loss = F.nll_loss(F.log_softmax(net(xb), 1), yb)
        loss.backward()
        opt.step()
    print(epoch, loss.item())
