# expect: batch-samples-mix [run]
# about: attention pooling with softmax(dim=0) over the batch in place of the time axis
# accept: argmax-over-wrong-dimension
import torch
import torch.nn as nn
import torch.nn.functional as F


class AttentionPool(nn.Module):
    def __init__(self, d, h=24):
        super().__init__()
        self.rnn = nn.GRU(d, h, batch_first=True)
        self.score = nn.Linear(h, 1)
        self.head = nn.Linear(h, 3)

    def forward(self, x):
        h, _ = self.rnn(x)
        w = F.softmax(self.score(h), dim=0)
        return self.head((w * h).sum(1))


torch.manual_seed(1)
x = torch.randn(640, 8, 5)
y = x.mean(1)[:, :3].argmax(1)
net = AttentionPool(5)
opt = torch.optim.Adam(net.parameters(), 5e-3)
for ep in range(6):
    net.train()
    for i in torch.randperm(512).split(32):
        loss = F.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(ep, loss.item(), (net(x[512:]).argmax(1) == y[512:]).float().mean().item())
