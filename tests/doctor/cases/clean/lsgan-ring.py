# expect: nothing
# about: least-squares GAN: squared error between scores and constants 0 and 1, two optimizers, a loss that neither falls nor should
# allow: no-validation
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class Generator(nn.Module):
    def __init__(self, z_dim=6):
        super().__init__()
        self.z_dim = z_dim
        self.net = nn.Sequential(nn.Linear(z_dim, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, n):
        return self.net(torch.randn(n, self.z_dim))


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def forward(self, x):
        return self.net(x)


def sample_real(n):
    k = torch.randint(0, 8, (n,))
    angle = 2 * math.pi * k / 8
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.03 * torch.randn(n, 2)


if __name__ == "__main__":
    torch.manual_seed(1)
    netG, netD = Generator(), Discriminator()
    optimizerG = torch.optim.RMSprop(netG.parameters(), lr=2e-4)
    optimizerD = torch.optim.RMSprop(netD.parameters(), lr=2e-4)
    valid, fake = torch.ones(64, 1), torch.zeros(64, 1)
    for i in range(250):
        # ---- discriminator
        optimizerD.zero_grad()
        with torch.no_grad():
            gen = netG(64)
        loss_d = 0.5 * (F.mse_loss(netD(sample_real(64)), valid) + F.mse_loss(netD(gen), fake))
        loss_d.backward()
        optimizerD.step()
        # ---- generator
        optimizerG.zero_grad()
        loss_g = F.mse_loss(netD(netG(64)), valid)
        loss_g.backward()
        optimizerG.step()
        if i % 50 == 0:
            print("[%d/250] D %.4f G %.4f" % (i, loss_d.item(), loss_g.item()))
