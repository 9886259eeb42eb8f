# expect: step-before-backward [run]
# about: the StackOverflow GAN: D(fake) is computed once, optimizerD steps, then the generator's loss goes back through it
# exits: 1
import torch
from torch import nn

torch.manual_seed(0)
G = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
D = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
opt_g, opt_d = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)
bce = nn.BCEWithLogitsLoss()
for step in range(80):
    real = torch.randn(32, 2) + 2
    fake = G(torch.randn(32, 4))
    fake_score = D(fake)
    d_loss = bce(D(real), torch.ones(32, 1)) + bce(fake_score, torch.zeros(32, 1))
    opt_d.zero_grad()
    d_loss.backward(retain_graph=True)
    opt_d.step()
    g_loss = bce(fake_score, torch.ones(32, 1))
    opt_g.zero_grad()
    g_loss.backward()
    opt_g.step()
    print(step, d_loss.item(), g_loss.item())
