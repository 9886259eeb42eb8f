# expect: learning-rate-too-high [run]
# about: AdamW at a rate of 0.5 on a small ConvNet: the loss leaps to a hundred times its start
# allow: dead-units
# allow: not-learning
# allow: exploding-gradients
# allow: input-ignored
# allow: vanishing-gradients
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CONFIG = dict(lr=0.5, batch=60, epochs=4)
torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1380], y[:1380]), CONFIG["batch"], shuffle=True)
net = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.LeakyReLU(), nn.Conv2d(8, 16, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(256, 32), nn.LeakyReLU(), nn.Linear(32, 10)
)
opt = torch.optim.AdamW(net.parameters(), lr=CONFIG["lr"])
for epoch in range(CONFIG["epochs"]):
    worst = 0.0
    for a, b in loader:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(a), b)
        loss.backward()
        opt.step()
        worst = max(worst, loss.item())
    with torch.no_grad():
        print(epoch, "worst", round(worst, 2), "val", round(nn.functional.cross_entropy(net(x[1380:]), y[1380:]).item(), 3))
