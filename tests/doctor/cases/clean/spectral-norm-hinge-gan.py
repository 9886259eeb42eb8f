# expect: nothing
# about: hinge GAN with spectral norm, whose buffers change in every forward; the hinge loss may reach zero for a while
# allow: no-validation
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader

torch.manual_seed(0)
imgs = torch.tensor(load_digits().images / 8.0 - 1.0, dtype=torch.float32).unsqueeze(1)
loader = DataLoader(imgs[:1024], batch_size=64, shuffle=True, drop_last=True)


class D(nn.Module):
    def __init__(self, ch=16):
        super().__init__()
        self.c1 = spectral_norm(nn.Conv2d(1, ch, 3, stride=2, padding=1))
        self.c2 = spectral_norm(nn.Conv2d(ch, ch, 3, stride=2, padding=1))
        self.fc = spectral_norm(nn.Linear(ch * 4, 1))

    def forward(self, x):
        x = F.leaky_relu(self.c1(x), 0.1)
        x = F.leaky_relu(self.c2(x), 0.1)
        return self.fc(x.flatten(1))


class G(nn.Module):
    def __init__(self, ch=16):
        super().__init__()
        self.fc = nn.Linear(12, ch * 4)
        self.c1 = nn.ConvTranspose2d(ch, ch, 4, 2, 1)
        self.bn = nn.BatchNorm2d(ch)
        self.c2 = nn.ConvTranspose2d(ch, 1, 4, 2, 1)

    def forward(self, z):
        h = self.fc(z).view(len(z), -1, 2, 2)
        return torch.tanh(self.c2(F.relu(self.bn(self.c1(h)))))


gen, dis = G(), D()
opt_gen = torch.optim.Adam(gen.parameters(), lr=1e-3, betas=(0.0, 0.9))
opt_dis = torch.optim.Adam(dis.parameters(), lr=1e-3, betas=(0.0, 0.9))
for epoch in range(4):
    for real in loader:
        fake = gen(torch.randn(len(real), 12))
        dis_loss = F.relu(1.0 - dis(real)).mean() + F.relu(1.0 + dis(fake.detach())).mean()
        opt_dis.zero_grad()
        dis_loss.backward()
        opt_dis.step()

        gen_loss = -dis(gen(torch.randn(len(real), 12))).mean()
        opt_gen.zero_grad()
        gen_loss.backward()
        opt_gen.step()
    print(epoch, f"dis {dis_loss.item():.3f} gen {gen_loss.item():.3f}")
