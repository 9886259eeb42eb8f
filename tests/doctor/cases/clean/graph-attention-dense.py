# expect: nothing
# about: dense graph attention: softmax(dim=0) over the neighbours that send, of an (N, N) table whose columns receive
import torch
import torch.nn.functional as F
from torch import nn


class DenseGAT(nn.Module):
    def __init__(self, d, h, c):
        super().__init__()
        self.lin, self.src, self.dst, self.out = nn.Linear(d, h), nn.Linear(h, 1), nn.Linear(h, 1), nn.Linear(h, c)

    def forward(self, x, adj):
        z = self.lin(x)
        e = F.leaky_relu(self.src(z) + self.dst(z).t(), 0.2)
        alpha = F.softmax(e.masked_fill(adj == 0, -1e9), dim=0)
        return self.out(F.elu(alpha.t() @ z))


torch.manual_seed(0)
n = 120
y = torch.randint(0, 4, (n,))
adj = ((torch.rand(n, n) < torch.where(y[:, None] == y, 0.2, 0.01)).float() + torch.eye(n)).clamp(max=1)
x = torch.randn(n, 10) + 0.8 * F.one_hot(y, 10)
net = DenseGAT(10, 16, 4)
opt = torch.optim.Adam(net.parameters(), lr=1e-2)
for epoch in range(80):
    opt.zero_grad()
    loss = F.cross_entropy(net(x, adj)[:60], y[:60])
    loss.backward()
    opt.step()
    if epoch % 20 == 0:
        with torch.no_grad():
            print(epoch, loss.item(), (net(x, adj)[60:].argmax(1) == y[60:]).float().mean().item())
