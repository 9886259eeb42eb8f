# expect: broadcast-loss [run]
# about: an LSTM forecast of shape (N, T, 1) against targets (N, T), with L1Loss where N == T (no error, wrong pairs)
# allow: input-ignored
# allow: not-learning
import torch
from torch import nn


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 20, batch_first=True)
        self.linear = nn.Linear(20, 1)

    def forward(self, x):
        h, _ = self.lstm(x)
        return self.linear(h)


torch.manual_seed(0)
t = torch.arange(0, 900) * 0.1
series = torch.sin(t) + 0.4 * torch.sin(2.3 * t)
WINDOW = 24
xs = torch.stack([series[i : i + WINDOW] for i in range(0, 860)]).unsqueeze(-1)
ys = torch.stack([series[i + 1 : i + WINDOW + 1] for i in range(0, 860)])
model = Forecaster()
mae = nn.L1Loss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
for step in range(90):
    i = torch.randint(0, 700, (WINDOW,))
    out = model(xs[i])
    loss = mae(out, ys[i])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 15 == 0:
        print(step, loss.item())
