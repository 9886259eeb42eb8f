# expect: gradients-zeroed-before-step [run,source]
# about: zero_grad stands inside the microbatch loop, so a step sees only the last of four microbatches
# allow: accumulation-not-divided
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Config:
    accumulation_steps = 4
    epochs = 4
    lr = 0.02


def train_epoch(model, loader, optimizer, cfg):
    model.train()
    for i, (x, y) in enumerate(loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) / cfg.accumulation_steps
        loss.backward()
        if (i + 1) % cfg.accumulation_steps == 0:
            optimizer.step()


def validate(model, x, y):
    model.eval()
    with torch.no_grad():
        return F.cross_entropy(model(x), y).item()


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1440], y[:1440]), batch_size=18, shuffle=True)  # 80 batches
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=Config.lr, momentum=0.9)
for epoch in range(Config.epochs):
    train_epoch(model, loader, optimizer, Config)
    print(epoch, validate(model, x[1440:], y[1440:]))
