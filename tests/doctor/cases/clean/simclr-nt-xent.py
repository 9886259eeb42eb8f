# expect: nothing
# about: SimCLR: cross-entropy over in-batch similarities with a masked diagonal and targets that are row numbers
# allow: no-validation
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class TwoViews(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        img = self.images[i]
        return self.jitter(img), self.jitter(img)

    def jitter(self, img):
        shift = torch.randint(-1, 2, (2,)).tolist()
        return torch.roll(img, shift, (1, 2)) + 0.1 * torch.randn_like(img)


def nt_xent(z1, z2, t=0.5):
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    sim = z @ z.t() / t
    sim = sim.masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    targets = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
    return F.cross_entropy(sim, targets)


torch.manual_seed(4)
images = torch.tensor(load_digits().images / 16.0, dtype=torch.float32).unsqueeze(1)
loader = DataLoader(TwoViews(images[:1024]), batch_size=64, shuffle=True, drop_last=True)
encoder = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
head = nn.Sequential(nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 16))
params = list(encoder.parameters()) + list(head.parameters())
opt = torch.optim.Adam(params, lr=1e-3)
for epoch in range(4):
    running = 0.0
    for v1, v2 in loader:
        opt.zero_grad()
        loss = nt_xent(head(encoder(v1)), head(encoder(v2)))
        loss.backward()
        opt.step()
        running += loss.item()
    print("epoch", epoch, "contrastive loss", round(running / len(loader), 4))
