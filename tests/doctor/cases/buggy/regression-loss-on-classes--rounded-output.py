# expect: regression-loss-on-classes [run,source]
# about: ten digit classes as one number with L1 loss, accuracy by rounding the output
# allow: not-learning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 1))
l1 = nn.L1Loss()
adam = torch.optim.Adam(net.parameters(), lr=2e-3)
for epoch in range(6):
    net.train()
    for img, label in train:
        adam.zero_grad()
        out = net(img).squeeze(1)
        l1(out, label.float()).backward()
        adam.step()
    net.eval()
    with torch.no_grad():
        pred = net(x[1400:]).squeeze(1).round().clamp(0, 9).long()
        print(epoch, "accuracy", (pred == y[1400:]).float().mean().item())
