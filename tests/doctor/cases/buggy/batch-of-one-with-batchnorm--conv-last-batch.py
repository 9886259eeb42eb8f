# expect: batch-of-one-with-batchnorm [run,source]
# about: 1441 images in batches of 48: the last batch is one image; after global pooling BatchNorm1d refuses it
# exits: 1
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
train_loader = DataLoader(TensorDataset(x[:1441], y[:1441]), batch_size=48, shuffle=True)
val_loader = DataLoader(TensorDataset(x[1441:], y[1441:]), batch_size=89)


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 24, 3)
        self.neck = nn.BatchNorm1d(24)
        self.fc = nn.Linear(24, 10)

    def forward(self, x):
        return self.fc(self.neck(torch.relu(self.conv(x)).mean((2, 3))))


model = Embedder()
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(3):
    model.train()
    for a, b in train_loader:
        opt.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        print(epoch, sum((model(a).argmax(1) == b).sum().item() for a, b in val_loader) / 356)
