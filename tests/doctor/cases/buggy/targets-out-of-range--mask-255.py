# expect: targets-out-of-range [run]
# about: a segmentation mask marks unknown pixels with 255, and cross-entropy is not told to ignore it
# allow: no-validation
# exits: 1
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Blobs(Dataset):
    def __init__(self, n):
        g = torch.Generator().manual_seed(0)
        self.x = torch.randn(n, 1, 12, 12, generator=g)
        self.y = (F.avg_pool2d(self.x, 3, 1, 1)[:, 0] > 0).long()
        border = torch.rand(n, generator=g) < 0.02
        self.y[border, 0, :] = 255

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


torch.manual_seed(0)
loader = DataLoader(Blobs(640), batch_size=16, shuffle=True)
net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
criterion = nn.CrossEntropyLoss()
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(3):
    for x, mask in loader:
        opt.zero_grad()
        loss = criterion(net(x), mask)
        loss.backward()
        opt.step()
    print(epoch, loss.item())
