# expect: nothing
# about: a coordinate network fits one image: every step the same full grid, by nature of the task
import torch
from torch import nn

torch.manual_seed(0)
g = torch.linspace(-1, 1, 24)
yy, xx = torch.meshgrid(g, g, indexing="ij")
coords = torch.stack([xx, yy], -1).reshape(-1, 2)
image = ((xx**2 + yy**2).sqrt() * 6).sin().reshape(-1, 1)


class Siren(nn.Module):
    def __init__(self, h=48):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(2, h), nn.Linear(h, h), nn.Linear(h, 1)

    def forward(self, c):
        return self.l3(torch.sin(3 * self.l2(torch.sin(5 * self.l1(c)))))


field = Siren()
opt = torch.optim.Adam(field.parameters(), lr=3e-3)
for it in range(150):
    loss = (field(coords) - image).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 50 == 49:
        print(it, loss.item(), "psnr", (-10 * loss.log10()).item())
