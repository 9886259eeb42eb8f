# expect: nothing
# about: sequence-first tensors (T, N, D): attention pooling by softmax over dim 0 is over time, and the accuracy's argmax over the last
import torch
from torch import nn


class PooledLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(30, 24)
        self.lstm = nn.LSTM(24, 24)
        self.att = nn.Linear(24, 1)
        self.fc = nn.Linear(24, 2)

    def forward(self, x):  # x: (T, N)
        h, _ = self.lstm(self.emb(x))
        w = torch.softmax(self.att(h), dim=0)
        return self.fc((w * h).sum(0))


torch.manual_seed(0)
x = torch.randint(0, 30, (14, 700))
y = (x == 3).any(0).long()
model = PooledLSTM()
opt = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(8):
    for i in torch.randperm(560).split(40):
        loss = nn.functional.cross_entropy(model(x[:, i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        acc = (model(x[:, 560:]).argmax(-1) == y[560:]).float().mean()
    print(epoch, loss.item(), acc.item())
