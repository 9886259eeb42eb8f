# expect: nothing
# about: a loss at each depth; the model returns a list in train mode and one tensor in eval mode
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class EarlyExits(nn.Module):
    def __init__(self, width=40, depth=3, classes=10):
        super().__init__()
        dims = [64] + [width] * depth
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(i, o), nn.ReLU()) for i, o in zip(dims, dims[1:]))
        self.exits = nn.ModuleList(nn.Linear(width, classes) for _ in range(depth))

    def forward(self, x):
        outs = []
        for block, exit_ in zip(self.blocks, self.exits):
            x = block(x)
            outs.append(exit_(x))
        return outs if self.training else outs[-1]


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
net, weights = EarlyExits(), (0.2, 0.3, 1.0)
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
for epoch in range(5):
    net.train()
    for a, b in loader:
        loss = sum(w * nn.functional.cross_entropy(out, b) for w, out in zip(weights, net(a)))
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(epoch, round(loss.item(), 4), (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
