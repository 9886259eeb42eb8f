# expect: accumulation-not-divided [run,source]
# about: eight mean losses are summed into one step without division: the rate is eight times what it says
# allow: learning-rate-too-high
import torch
from torch import nn

torch.manual_seed(0)


def parity_of_ones(n, g):
    bits = torch.randint(0, 2, (n, 10), generator=g)
    return bits, bits.float().mean(1, keepdim=True)


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(2, 8)
        self.gru = nn.GRU(8, 16, batch_first=True)
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        return self.out(self.gru(self.emb(x))[0][:, -1])


g = torch.Generator().manual_seed(0)
(x, y) = parity_of_ones(960, g)
xv = torch.randint(0, 2, (200, 14), generator=g)
yv = xv.float().mean(1, keepdim=True)
model, mse = Counter(), nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
ACCUM = 8
for epoch in range(6):
    model.train()
    optimizer.zero_grad()
    for i, idx in enumerate(torch.randperm(960).split(20)):
        loss = mse(model(x[idx]), y[idx])
        loss.backward()
        if (i + 1) % ACCUM == 0:
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        print(epoch, round(mse(model(xv), yv).item(), 5))
