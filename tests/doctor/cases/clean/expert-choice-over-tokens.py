# expect: nothing
# about: expert-choice routing: softmax over the tokens (dim 0) of a flattened batch on purpose; a mixture for regression
import torch
import torch.nn.functional as F
from torch import nn


class ExpertChoice(nn.Module):
    def __init__(self, d=6, e=3):
        super().__init__()
        self.gate = nn.Linear(d, e)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(d, 16), nn.ReLU(), nn.Linear(16, 1)) for _ in range(e))
        self.base = nn.Linear(d, 1)

    def forward(self, x):
        share = F.softmax(self.gate(x), dim=0) * len(x)
        out = torch.cat([expert(x) for expert in self.experts], 1)
        return self.base(x) + (share * out).mean(1, keepdim=True)


torch.manual_seed(0)
x = torch.randn(1000, 6)
y = torch.where(x[:, :1] > 0, x[:, 1:2], x[:, 2:3] ** 2)
net = ExpertChoice()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(6):
    for i in torch.randperm(800).split(64):
        loss = F.mse_loss(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item())
