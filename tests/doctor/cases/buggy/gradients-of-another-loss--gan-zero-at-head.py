# expect: gradients-of-another-loss [run,source]
# about: both optimizers are zeroed at the head only; the discriminator then steps on its own gradients plus those of the generator's loss
# allow: no-validation
import torch
from torch import nn

torch.manual_seed(0)
netG = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 2))
netD = nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(0.2), nn.Linear(24, 1))
optG = torch.optim.Adam(netG.parameters(), lr=1e-3, betas=(0.5, 0.999))
optD = torch.optim.Adam(netD.parameters(), lr=1e-3, betas=(0.5, 0.999))
criterion = nn.BCEWithLogitsLoss()
real_label, fake_label = torch.ones(64, 1), torch.zeros(64, 1)
target_mean = torch.tensor([2.0, -1.0])
for i in range(200):
    optG.zero_grad()
    optD.zero_grad()
    fake = netG(torch.randn(64, 4))

    errG = criterion(netD(fake), real_label)
    errG.backward()
    optG.step()

    real = target_mean + 0.3 * torch.randn(64, 2)
    errD = criterion(netD(real), real_label) + criterion(netD(fake.detach()), fake_label)
    errD.backward()
    optD.step()
    if i % 40 == 39:
        print(i + 1, round(errD.item(), 3), round(errG.item(), 3), "mean of fakes", fake.mean(0).tolist())
