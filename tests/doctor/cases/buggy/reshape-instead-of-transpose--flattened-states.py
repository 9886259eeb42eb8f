# expect: reshape-instead-of-transpose [run,source]
# about: tokens of (T,N,D) from a recurrent layer are brought to (N,T*D) by reshape without transpose: features of different samples mix
# allow: batch-samples-mix
# allow: not-learning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class SeqNet(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.lstm = nn.LSTM(8, hidden)
        self.fc = nn.Linear(8 * hidden, 10)

    def forward(self, x):
        out, _ = self.lstm(x.transpose(0, 1))  # (T, N, H)
        return self.fc(out.reshape(x.size(0), -1))


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=40, shuffle=True)
val = DataLoader(TensorDataset(x[1400:1760], y[1400:1760]), batch_size=40)
net = SeqNet()
opt = torch.optim.AdamW(net.parameters(), lr=5e-3)
for epoch in range(4):
    net.train()
    for a, b in train:
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(epoch, "val acc", sum((net(a).argmax(1) == b).sum().item() for a, b in val) / 360)
