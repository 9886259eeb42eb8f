# expect: reshape-instead-of-transpose [run]
# about: (N, H, W, C) images are reshaped to (N, C, H, W) instead of permuted
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.default_rng(0)
n = 800
label = rng.integers(0, 3, n)
img = rng.normal(0, 0.3, (n, 12, 12, 3)).astype("float32")
for i, c in enumerate(label):  # a bright square in channel c
    r, s = rng.integers(0, 8, 2)
    img[i, r : r + 4, s : s + 4, c] += 1.0
torch.manual_seed(0)
loader = DataLoader(TensorDataset(torch.from_numpy(img[:640]), torch.from_numpy(label[:640])), 32, shuffle=True)
test_x, test_y = torch.from_numpy(img[640:]), torch.from_numpy(label[640:])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.out = nn.Linear(12, 3)

    def forward(self, images):
        images = images.reshape(images.shape[0], images.shape[3], images.shape[1], images.shape[2])
        return self.out(torch.relu(self.conv(images)).mean((2, 3)))


net = Net()
opt = torch.optim.Adam(net.parameters(), lr=1e-2)
for epoch in range(5):
    for x, y in loader:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, loss.item(), (net(test_x).argmax(1) == test_y).float().mean().item())
