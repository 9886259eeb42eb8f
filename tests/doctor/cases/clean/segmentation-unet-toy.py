# expect: nothing
# about: per-pixel classes: logits (N,C,H,W), targets (N,H,W), argmax over dim 1, cross-entropy plus soft dice, most pixels are background
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Shapes(Dataset):
    """Discs (1) and squares (2) on noise (0)."""

    def __init__(self, n, seed):
        g = torch.Generator().manual_seed(seed)
        self.x = 0.3 * torch.randn(n, 1, 16, 16, generator=g)
        self.y = torch.zeros(n, 16, 16, dtype=torch.long)
        r = torch.arange(16)
        for k in range(n):
            cy, cx = torch.randint(4, 12, (2,), generator=g).tolist()
            kind = 1 + int(torch.randint(0, 2, (1,), generator=g))
            dy, dx = (r[:, None] - cy).abs(), (r[None] - cx).abs()
            mask = (dy**2 + dx**2 <= 5) if kind == 1 else ((dy <= 3) & (dx <= 3))
            self.x[k, 0][mask] += 1.0
            self.y[k][mask] = kind

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"image": self.x[i], "mask": self.y[i]}


def conv(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class TinyUNet(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.down, self.mid, self.up = conv(1, 8), conv(8, 16), conv(24, 8)
        self.out = nn.Conv2d(8, classes, 1)

    def forward(self, x):
        a = self.down(x)
        b = self.mid(F.max_pool2d(a, 2))
        return self.out(self.up(torch.cat([a, F.interpolate(b, scale_factor=2)], 1)))


def dice_loss(logits, target):
    p, t = F.softmax(logits, dim=1), F.one_hot(target, 3).permute(0, 3, 1, 2).float()
    return 1 - ((2 * (p * t).sum((0, 2, 3)) + 1) / ((p + t).sum((0, 2, 3)) + 1)).mean()


if __name__ == "__main__":
    torch.manual_seed(0)
    train_loader, val_loader = DataLoader(Shapes(240, 1), 12, shuffle=True), DataLoader(Shapes(60, 2), 30)
    net = TinyUNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=2.5e-3)
    for epoch in range(5):
        net.train()
        for batch in train_loader:
            optimizer.zero_grad()
            logits = net(batch["image"])
            loss = F.cross_entropy(logits, batch["mask"]) + dice_loss(logits, batch["mask"])
            loss.backward()
            optimizer.step()
        net.eval()
        inter = union = 0
        with torch.no_grad():
            for batch in val_loader:
                pred = net(batch["image"]).argmax(dim=1)
                for c in (1, 2):
                    inter += ((pred == c) & (batch["mask"] == c)).sum().item()
                    union += ((pred == c) | (batch["mask"] == c)).sum().item()
        print(f"epoch {epoch} IoU of shapes {inter / max(union, 1):.3f}")
