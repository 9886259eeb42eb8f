# expect: nothing
# about: counts (0 … 6 objects in an image) by MSE: whole numbers called labels, from a data set class; counts have an order
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset


class DotsDataset(Dataset):
    def __init__(self, n, seed):
        g = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, 7, (n,), generator=g)
        self.images = 0.05 * torch.rand(n, 1, 12, 12, generator=g)
        for image, label in zip(self.images, self.labels):
            cells = torch.randperm(144, generator=g)[: int(label)]
            image.view(-1)[cells] = 1.0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i], self.labels[i].float()


class CountNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(F.relu(self.conv(x)).mean((2, 3)) * 10).squeeze(1)


torch.manual_seed(0)
train_dl = DataLoader(DotsDataset(800, 0), batch_size=40, shuffle=True)
val_dl = DataLoader(DotsDataset(200, 1), batch_size=100)
net = CountNet()
opt = torch.optim.Adam(net.parameters(), lr=1e-2)
for epoch in range(6):
    net.train()
    for images, labels in train_dl:
        loss = F.mse_loss(net(images), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        exact = sum((net(im).round() == lb).sum().item() for im, lb in val_dl)
        err = sum((net(im) - lb).abs().sum().item() for im, lb in val_dl)
    print(epoch, "mean absolute error", err / 200, "exact counts", exact / 200)
