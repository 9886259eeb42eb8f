# expect: nothing
# about: a graph network made by hand: one full-batch forward over all nodes, train and validation by masks (leak, same batch, samples mix by design)
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
N, C, D = 300, 3, 16
label = torch.randint(0, C, (N,))
same = label[:, None] == label[None]
adj = torch.bernoulli(torch.where(same, 0.04, 0.006)).triu(1)
adj = adj + adj.T + torch.eye(N)
norm = adj.sum(1).rsqrt()
A = norm[:, None] * adj * norm[None]
features = torch.randn(N, D) + F.one_hot(label, D).float()
perm = torch.randperm(N)
train_mask, val_mask = perm[:120], perm[120:]


class GCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Linear(D, 32)
        self.w2 = nn.Linear(32, C)

    def forward(self, x, a):
        h = F.dropout(F.relu(a @ self.w1(x)), 0.3, self.training)
        return a @ self.w2(h)


net = GCN()
opt = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=5e-4)
for epoch in range(100):
    net.train()
    opt.zero_grad()
    out = net(features, A)
    loss = F.cross_entropy(out[train_mask], label[train_mask])
    loss.backward()
    opt.step()
    if epoch % 20 == 19:
        net.eval()
        with torch.no_grad():
            out = net(features, A)
            print(epoch, F.cross_entropy(out[val_mask], label[val_mask]).item(), (out[val_mask].argmax(1) == label[val_mask]).float().mean().item())
