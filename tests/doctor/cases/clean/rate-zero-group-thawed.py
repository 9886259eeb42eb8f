# expect: nothing
# about: two parameter groups, the backbone's rate is 0 for now (a plan of thawing), the head learns
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
backbone, head = nn.Sequential(nn.Linear(64, 128), nn.ReLU()), nn.Linear(128, 10)
opt = torch.optim.Adam([{"params": backbone.parameters(), "lr": 0.0}, {"params": head.parameters(), "lr": 3e-3}])
for epoch in range(5):
    if epoch == 3:
        opt.param_groups[0]["lr"] = 1e-3
    for i in torch.randperm(1500).split(60):
        loss = nn.functional.cross_entropy(head(backbone(x[i])), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, (head(backbone(x[1500:])).argmax(1) == y[1500:]).float().mean().item())
