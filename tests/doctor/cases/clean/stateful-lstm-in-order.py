# expect: nothing
# about: a series in order, unshuffled, LSTM state carried over batches and detached; validation goes on from the state after the training part
import torch
from torch import nn

torch.manual_seed(0)
t = torch.arange(1800, dtype=torch.float32)
series = torch.sin(t / 9) * (1 + 0.4 * torch.sin(t / 50)) + 0.1 * torch.randn(1800)
train, val = series[:1500], series[1500:]
mu, sigma = train.mean(), train.std()
train, val = (train - mu) / sigma, (val - mu) / sigma
SEQ = 25


class Forecaster(nn.Module):
    def __init__(self, hidden=24):
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x, state=None):
        h, state = self.lstm(x, state)
        return self.out(h), state


def chunks(s):
    for start in range(0, len(s) - 1, SEQ):
        stop = min(start + SEQ, len(s) - 1)
        yield s[start:stop].view(1, -1, 1), s[start + 1 : stop + 1].view(1, -1, 1)


net = Forecaster()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
mse = nn.MSELoss()
for epoch in range(6):
    net.train()
    state = None
    for x, y in chunks(train):
        if state is not None:
            state = tuple(s.detach() for s in state)
        out, state = net(x, state)
        loss = mse(out, y)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
    net.eval()
    total = n = 0
    with torch.no_grad():
        for x, y in chunks(val):
            out, state = net(x, state)
            total, n = total + (out - y).square().sum().item(), n + y.numel()
    print(f"epoch {epoch} one step ahead mse {total / n:.4f}")
