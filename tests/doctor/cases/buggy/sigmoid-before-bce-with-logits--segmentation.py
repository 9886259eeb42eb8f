# expect: sigmoid-before-bce-with-logits [run,source]
# about: a mask net ends in nn.Sigmoid() and is trained with BCEWithLogitsLoss(pos_weight=...)
# allow: not-learning
import torch
import torch.nn as nn

torch.manual_seed(0)


def scenes(n, g):
    r = torch.arange(14.0)
    c = torch.rand(n, 2, generator=g) * 8 + 3
    dist = (r[:, None] - c[:, 0, None, None]) ** 2 + (r - c[:, 1, None, None]) ** 2
    mask = (dist < 8).float()[:, None]
    return mask + 0.5 * torch.randn(n, 1, 14, 14, generator=g), mask


g = torch.Generator().manual_seed(0)
(x, m), (xv, mv) = scenes(320, g), scenes(80, g)
net = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 1, 1), nn.Sigmoid(),
)
criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([4.0]))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(5):
    net.train()
    for i in torch.randperm(320).split(16):
        opt.zero_grad()
        criterion(net(x[i]), m[i]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        out = net(xv)
        print(epoch, "val", round(criterion(out, mv).item(), 4), "largest output", out.max().item())
