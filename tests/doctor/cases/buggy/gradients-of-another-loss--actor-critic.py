# expect: gradients-of-another-loss [run]
# about: DDPG-like: the actor's loss goes through the critic; critic's gradients are not cleared before its own backward
import torch
from torch import nn

torch.manual_seed(0)
actor = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 1), nn.Tanh())
critic = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1))
a_opt = torch.optim.Adam(actor.parameters(), lr=1e-3)
c_opt = torch.optim.Adam(critic.parameters(), lr=2e-3)


def reward(s, a):
    return -(a - s[:, :1].tanh()) ** 2


for it in range(120):
    s = torch.randn(64, 3)
    with torch.no_grad():
        a = (actor(s) + 0.3 * torch.randn(64, 1)).clamp(-1, 1)
    r = reward(s, a)
    # critic
    q = critic(torch.cat([s, a], 1))
    c_loss = nn.functional.mse_loss(q, r)
    c_loss.backward()
    c_opt.step()
    c_opt.zero_grad()
    # actor
    a_loss = -critic(torch.cat([s, actor(s)], 1)).mean()
    a_opt.zero_grad()
    a_loss.backward()
    a_opt.step()
    if it % 30 == 0:
        print(it, c_loss.item(), a_loss.item())
