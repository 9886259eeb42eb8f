# expect: nothing
# about: actor-critic in a maze without any reward yet: the advantage is exactly zero because the critic starts at zero
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
actor = nn.Linear(9, 4)
critic = nn.Linear(9, 1)
nn.init.zeros_(critic.weight)
nn.init.zeros_(critic.bias)
opt = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=1e-3)
state = 0
for t in range(100):
    s = F.one_hot(torch.tensor([state]), 9).float()
    dist = torch.distributions.Categorical(logits=actor(s))
    a = dist.sample()
    state = min(8, max(0, state + int(a.item()) - 2))
    reward = 1.0 if state == 8 else 0.0
    with torch.no_grad():
        target = reward + 0.9 * critic(F.one_hot(torch.tensor([state]), 9).float())
    value = critic(s)
    advantage = (target - value).detach()
    loss = (-dist.log_prob(a) * advantage.squeeze(1) + (value - target).pow(2).squeeze(1)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if t % 20 == 0:
        print(t, state, loss.item())
