# expect: nothing
# about: WGAN-GP: autograd.grad with create_graph inside the loss, five critic steps for one of the generator, losses below zero
# allow: no-validation
import torch
from torch import autograd, nn, optim

torch.manual_seed(0)
LAMBDA, CRITIC_ITERS, BATCH = 1.0, 5, 48


class Gen(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Linear(2, 48), nn.ReLU(True), nn.Linear(48, 2))

    def forward(self, noise):
        return self.main(noise)


def calc_gradient_penalty(critic, real, fake):
    alpha = torch.rand(len(real), 1)
    inter = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    out = critic(inter)
    (grads,) = autograd.grad(out, inter, grad_outputs=torch.ones_like(out), create_graph=True, retain_graph=True)
    return ((grads.norm(2, dim=1) - 1) ** 2).mean() * LAMBDA


def inf_data():
    while True:
        centre = torch.randint(0, 2, (BATCH, 1)).float() * 2 - 1
        yield torch.cat([centre, centre], 1) + 0.2 * torch.randn(BATCH, 2)


netG = Gen()
netD = nn.Sequential(nn.Linear(2, 48), nn.ReLU(True), nn.Linear(48, 48), nn.ReLU(True), nn.Linear(48, 1))
optD = optim.Adam(netD.parameters(), lr=1e-3, betas=(0.5, 0.9))
optG = optim.Adam(netG.parameters(), lr=1e-3, betas=(0.5, 0.9))
data = inf_data()
for iteration in range(60):
    for p in netD.parameters():
        p.requires_grad = True
    for _ in range(CRITIC_ITERS):
        real = next(data)
        netD.zero_grad()
        fake = netG(torch.randn(BATCH, 2)).detach()
        d_cost = netD(fake).mean() - netD(real).mean() + calc_gradient_penalty(netD, real, fake)
        d_cost.backward()
        optD.step()
    for p in netD.parameters():
        p.requires_grad = False
    netG.zero_grad()
    g_cost = -netD(netG(torch.randn(BATCH, 2))).mean()
    g_cost.backward()
    optG.step()
    if iteration % 15 == 14:
        print(iteration + 1, "D %.3f G %.3f" % (d_cost.item(), g_cost.item()))
