# expect: sigmoid-before-bce-with-logits [run]
# about: a small segmentation net ends in nn.Sigmoid, its output is clamped for "stability", the loss is BCEWithLogitsLoss(pos_weight)
# allow: not-learning
import torch
from torch import nn, optim


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(2, o), nn.ReLU(inplace=True))


class MiniUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = block(1, 8)
        self.mid = block(8, 8)
        self.up = block(16, 8)
        self.out = nn.Sequential(nn.Conv2d(8, 1, 1), nn.Sigmoid())

    def forward(self, x):
        a = self.down(x)
        b = self.mid(nn.functional.max_pool2d(a, 2))
        b = nn.functional.interpolate(b, scale_factor=2)
        return self.out(self.up(torch.cat([a, b], dim=1)))


def circles(n, size=16):
    yy, xx = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = torch.randint(4, 12, (n, 2, 1, 1))
    radius = torch.randint(2, 5, (n, 1, 1))
    mask = ((yy - centre[:, 0]) ** 2 + (xx - centre[:, 1]) ** 2 <= radius**2).float()[:, None]
    return mask + 0.4 * torch.randn(n, 1, size, size), mask


torch.manual_seed(2)
images, masks = circles(200)
model = MiniUNet()
criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(4.0))
optimizer = optim.Adam(model.parameters(), lr=5e-3)
for it in range(70):
    sel = torch.randperm(200)[:16]
    pred = model(images[sel]).clamp(1e-6, 1 - 1e-6)
    loss = criterion(pred, masks[sel])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if it % 10 == 0:
        inter = ((pred > 0.5) & (masks[sel] > 0.5)).sum()
        print(it, loss.item(), "iou", (inter / ((pred > 0.5) | (masks[sel] > 0.5)).sum()).item())
