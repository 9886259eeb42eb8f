# expect: nothing
# about: multi-task regression with missing targets (NaN in y on purpose), masked out before the loss; inputs imputed with train means
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(1000, 10)
y = torch.stack([x[:, 0] - x[:, 1], x[:, 2] * 0.5 + x[:, 3]], 1) + 0.1 * torch.randn(1000, 2)
y[torch.rand_like(y) < 0.3] = float("nan")
x[torch.rand_like(x) < 0.05] = float("nan")
train, val = slice(0, 800), slice(800, 1000)
fill = x[train].nanmean(0)
x = torch.where(x.isnan(), fill, x)


def masked_mse(pred, target):
    mask = ~torch.isnan(target)
    return ((pred - torch.nan_to_num(target)) ** 2)[mask].mean()


net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(5):
    for idx in torch.randperm(800).split(32):
        opt.zero_grad()
        masked_mse(net(x[idx]), y[idx]).backward()
        opt.step()
    with torch.no_grad():
        print(epoch, masked_mse(net(x[val]), y[val]).item())
