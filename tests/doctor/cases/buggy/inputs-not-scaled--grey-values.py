# expect: inputs-not-scaled [run]
# about: grey values 0..255 go into an LSTM as they are
# allow: saturated-activations
# allow: initial-loss-off
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x = torch.tensor((d.images * 15.9375).round(), dtype=torch.float32)  # as read from 8-bit files
y = torch.tensor(d.target)
dl = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=56, shuffle=True)


class RowLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 32, batch_first=True)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return self.fc(h[-1])


model = RowLSTM()
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(5):
    model.train()
    for a, b in dl:
        opt.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        print(epoch, (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
