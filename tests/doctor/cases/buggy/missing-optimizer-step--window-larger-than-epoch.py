# expect: missing-optimizer-step [run]
# about: i is counted from 0 in each epoch of 10 batches, the step waits for (i + 1) % 16 == 0, zero_grad at the epoch's head
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X = torch.randn(400, 5)
y = (X[:, 0] > 0).long()
dl = DataLoader(TensorDataset(X[:320], y[:320]), batch_size=32, shuffle=True)
net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))
opt = torch.optim.Adam(net.parameters(), 1e-2)
accum = 16
for ep in range(10):
    net.train()
    opt.zero_grad()
    for i, (xb, yb) in enumerate(dl):
        loss = nn.functional.cross_entropy(net(xb), yb) / accum
        loss.backward()
        if (i + 1) % accum == 0:
            opt.step()
            opt.zero_grad()
    net.eval()
    with torch.no_grad():
        print(ep, (net(X[320:]).argmax(1) == y[320:]).float().mean().item())
