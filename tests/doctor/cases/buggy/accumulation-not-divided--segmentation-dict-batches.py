# expect: accumulation-not-divided [run,source]
# about: four micro-batches a step, each loss a mean over its pixels, added up undivided
# allow: learning-rate-too-high
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Halves(Dataset):
    """Bright half of a noisy image."""

    def __init__(self, n, seed):
        g = torch.Generator().manual_seed(seed)
        tilt = torch.randn(n, 2, generator=g)
        r = torch.linspace(-1, 1, 12)
        plane = tilt[:, 0, None, None] * r[:, None] + tilt[:, 1, None, None] * r
        self.mask = (plane > 0).float()[:, None]
        self.image = self.mask + 0.8 * torch.randn(n, 1, 12, 12, generator=g) - 0.5

    def __len__(self):
        return len(self.image)

    def __getitem__(self, i):
        return {"image": self.image[i], "mask": self.mask[i]}


torch.manual_seed(0)
train, val = DataLoader(Halves(320, 0), batch_size=4, shuffle=True), DataLoader(Halves(80, 1), batch_size=40)
net = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2))
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
bce = nn.BCEWithLogitsLoss()
virtual_batch, micro_batch = 16, 4
every = virtual_batch // micro_batch
for epoch in range(3):
    net.train()
    for n, batch in enumerate(train, start=1):
        bce(net(batch["image"]), batch["mask"]).backward()
        if n % every == 0:
            opt.step()
            opt.zero_grad(set_to_none=True)
    net.eval()
    with torch.no_grad():
        print(epoch, [round(bce(net(b["image"]), b["mask"]).item(), 4) for b in val])
