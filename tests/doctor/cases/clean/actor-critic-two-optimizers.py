# expect: nothing
# about: actor and critic each with an optimizer; the advantage is detached, returns are targets without gradient, one episode is one step
# allow: no-validation
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(0)
N = 6  # a corridor: start in the middle, right end pays 1


class Corridor:
    def reset(self):
        self.pos, self.t = N // 2, 0
        return self.pos

    def step(self, a):
        self.pos += 1 if a == 1 else -1
        self.t += 1
        done = self.pos in (0, N) or self.t >= 20
        return self.pos, float(self.pos == N), done


onehot = torch.eye(N + 1)
actor = nn.Sequential(nn.Linear(N + 1, 16), nn.Tanh(), nn.Linear(16, 2))
critic = nn.Sequential(nn.Linear(N + 1, 16), nn.Tanh(), nn.Linear(16, 1))
actor_opt = torch.optim.Adam(actor.parameters(), lr=5e-3)
critic_opt = torch.optim.Adam(critic.parameters(), lr=1e-2)
env, gamma, wins = Corridor(), 0.95, []

for episode in range(150):
    states, log_probs, rewards = [], [], []
    s, done = env.reset(), False
    while not done:
        dist = Categorical(logits=actor(onehot[s]))
        a = dist.sample()
        states.append(s)
        log_probs.append(dist.log_prob(a))
        s, r, done = env.step(a.item())
        rewards.append(r)
    returns, g = [], 0.0
    for r in reversed(rewards):
        g = r + gamma * g
        returns.insert(0, g)
    returns = torch.tensor(returns)
    values = critic(onehot[states]).squeeze(-1)
    advantage = returns - values.detach()

    actor_opt.zero_grad()
    (-(torch.stack(log_probs) * advantage).sum()).backward()
    actor_opt.step()

    critic_opt.zero_grad()
    F.mse_loss(values, returns).backward()
    critic_opt.step()
    wins.append(rewards[-1])
    if episode % 30 == 29:
        print(episode + 1, "wins of the last 30:", sum(wins[-30:]))
