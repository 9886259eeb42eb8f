# expect: batch-samples-mix [run]
# about: gate weights are normalised with sum(0): a sample's gates depend on the other samples of its batch, in eval mode too
# allow: argmax-over-wrong-dimension
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.value, self.out = nn.Linear(13, 16), nn.Linear(13, 16), nn.Linear(16, 3)

    def forward(self, x):
        g = torch.exp(self.gate(x))
        g = g / g.sum(0, keepdim=True)
        return self.out(g * torch.tanh(self.value(x)) * 16)


torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, stratify=y, random_state=0)
m, s = a.mean(0), a.std(0)
a, b = torch.tensor((a - m) / s).float(), torch.tensor((b - m) / s).float()
loader = DataLoader(TensorDataset(a, torch.tensor(ya)), batch_size=19, shuffle=True)
yb = torch.tensor(yb)
net = Gated()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(12):
    net.train()
    for x, t in loader:
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), t).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        together, alone = net(b), torch.cat([net(r[None]) for r in b])
        if epoch % 4 == 3:
            print(epoch, "together", (together.argmax(1) == yb).float().mean().item(), "alone", (alone.argmax(1) == yb).float().mean().item(), "differ by", (together - alone).abs().max().item())
