# expect: evaluation-on-training-data [run,source]
# about: the validation loader is built from train_ds by a slip: the model is chosen on what it was trained on
# allow: leak-between-splits
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(0)
d = load_digits()
full = TensorDataset(torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target))
train_ds, valid_ds = random_split(full, [1200, 597])
train_dl = DataLoader(train_ds, batch_size=40, shuffle=True)
valid_dl = DataLoader(train_ds, batch_size=120)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
opt = torch.optim.Adam(net.parameters(), lr=2e-3)


def fit(epochs):
    for epoch in range(epochs):
        net.train()
        for xb, yb in train_dl:
            opt.zero_grad()
            nn.functional.cross_entropy(net(xb), yb).backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            losses, nums = zip(*[(nn.functional.cross_entropy(net(xb), yb).item(), len(xb)) for xb, yb in valid_dl])
        print(epoch, "valid loss", sum(a * n for a, n in zip(losses, nums)) / sum(nums))


fit(5)
