# expect: batch-samples-mix [run]
# about: nn.MultiheadAttention without batch_first on (N,T,D): samples attend to each other over the batch
# allow: reshape-instead-of-transpose
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class RowAttention(nn.Module):
    def __init__(self, d=24):
        super().__init__()
        self.embed = nn.Linear(8, d)
        self.pos = nn.Parameter(0.1 * torch.randn(8, d))
        self.attn = nn.MultiheadAttention(d, 2)
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(8 * d, 10)

    def forward(self, rows):
        h = self.embed(rows) + self.pos
        h = self.norm(h + self.attn(h, h, h, need_weights=False)[0])
        return self.head(h.flatten(1))


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
net = RowAttention()
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
for epoch in range(4):
    net.train()
    for a, b in train:
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        together = net(x[1400:1450])
        alone = torch.cat([net(x[i : i + 1]) for i in range(1400, 1450)])
        acc = (together.argmax(1) == y[1400:1450]).float().mean().item()
    print(epoch, "acc", round(acc, 3), "largest difference alone", round((together - alone).abs().max().item(), 3))
