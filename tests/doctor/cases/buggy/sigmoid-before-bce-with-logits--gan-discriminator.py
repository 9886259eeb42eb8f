# expect: sigmoid-before-bce-with-logits [run]
# about: a GAN whose discriminator ends in a sigmoid, with BCEWithLogitsLoss
# allow: not-learning
import torch
from torch import nn


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def forward(self, x):
        return torch.sigmoid(self.main(x))


torch.manual_seed(0)
netD, netG = Discriminator(), nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
criterion = nn.BCEWithLogitsLoss()
optD = torch.optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
optG = torch.optim.Adam(netG.parameters(), lr=2e-3, betas=(0.5, 0.999))
for i in range(60):
    real = torch.randn(64, 2) * 0.2 + 1
    netD.zero_grad()
    errD = criterion(netD(real), torch.ones(64, 1))
    fake = netG(torch.randn(64, 4))
    errD = errD + criterion(netD(fake.detach()), torch.zeros(64, 1))
    errD.backward()
    optD.step()
    netG.zero_grad()
    errG = criterion(netD(fake), torch.ones(64, 1))
    errG.backward()
    optG.step()
    if i % 20 == 0:
        print(i, errD.item(), errG.item())
