# expect: nothing
# about: denoising autoencoder: validation adds noise too, for noise is the task
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

torch.manual_seed(0)
data = torch.tensor(load_digits().data, dtype=torch.float32) / 16


def corrupt(clean, sigma=0.3):
    return clean + sigma * torch.randn_like(clean)


net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 64))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
train_dl, val_dl = DataLoader(data[:1400], 50, shuffle=True), DataLoader(data[1400:], 100)
for epoch in range(4):
    net.train()
    for clean in train_dl:
        denoised = net(corrupt(clean))
        loss = nn.functional.mse_loss(denoised, clean)
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        errs = [nn.functional.mse_loss(net(corrupt(c)), c).item() * len(c) for c in val_dl]
    print(epoch, sum(errs) / 397)
