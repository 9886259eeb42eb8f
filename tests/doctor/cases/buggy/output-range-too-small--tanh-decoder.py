# expect: output-range-too-small [run,source]
# about: an autoencoder on standardised pixels (up to 3 and more) whose decoder ends in Tanh
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader


class ConvAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 12))
        self.dec = nn.Sequential(nn.Linear(12, 96), nn.ReLU(), nn.Linear(96, 64), nn.Tanh())

    def forward(self, x):
        return self.dec(self.enc(x)).view_as(x)


torch.manual_seed(0)
x = torch.tensor(load_digits().images, dtype=torch.float32)[:, None]
train, val = x[:1400], x[1400:]
mean, std = train.mean(), train.std() / 1.6
train, val = (train - mean) / std, (val - mean) / std
model = ConvAE()
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(5):
    model.train()
    for batch in DataLoader(train, batch_size=56, shuffle=True):
        opt.zero_grad()
        nn.functional.mse_loss(model(batch), batch).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        out = model(val)
    print(epoch, "val mse", round(nn.functional.mse_loss(out, val).item(), 4), "outputs to", round(out.max().item(), 2), "targets to", round(val.max().item(), 2))
