# expect: dropout-without-effect [run,source]
# about: nn.GRU(dropout=0.5, num_layers=1): dropout stands between layers, and there is only one
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class RowReader(nn.Module):
    def __init__(self, hidden=40):
        super().__init__()
        self.gru = nn.GRU(input_size=8, hidden_size=hidden, num_layers=1, dropout=0.5, batch_first=True)
        self.fc = nn.Linear(hidden, 10)

    def forward(self, x):
        out, h = self.gru(x)
        return self.fc(out[:, -1])


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=70, shuffle=True)
net = RowReader()
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(5):
    net.train()
    for a, b in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        print(epoch, (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
