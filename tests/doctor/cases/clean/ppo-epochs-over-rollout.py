# expect: nothing
# about: PPO goes over the same rollout four times in shuffled minibatches: the same data every step on purpose
# allow: no-validation
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributions import Normal


@dataclass
class Args:
    envs: int = 32
    horizon: int = 10
    epochs: int = 4
    minibatches: int = 4
    clip: float = 0.2
    updates: int = 12
    lr: float = 2e-3


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.log_std = nn.Parameter(torch.zeros(1))

    def dist(self, obs):
        return Normal(self.actor(obs), self.log_std.exp())


def rollout(agent, args):
    """A point on a line is to be brought to zero; reward is minus the distance."""
    pos, vel = torch.randn(args.envs), torch.zeros(args.envs)
    obs, act, logp, rew, val = [], [], [], [], []
    with torch.no_grad():
        for _ in range(args.horizon):
            o = torch.stack([pos, vel], 1)
            d = agent.dist(o)
            a = d.sample()
            obs.append(o), act.append(a), logp.append(d.log_prob(a).sum(-1)), val.append(agent.critic(o).squeeze(-1))
            vel = 0.7 * vel + 0.3 * a.squeeze(-1).clamp(-1, 1)
            pos = pos + vel
            rew.append(-pos.abs() * 0.1)
    ret, g = [], torch.zeros(args.envs)
    for r in reversed(rew):
        g = r + 0.9 * g
        ret.insert(0, g)
    flat = lambda xs: torch.stack(xs).flatten(0, 1)
    return flat(obs), flat(act), flat(logp), flat(ret), flat(val), torch.stack(rew).mean().item()


args = Args()
torch.manual_seed(0)
agent = Agent()
opt = torch.optim.Adam(agent.parameters(), lr=args.lr, eps=1e-5)
for update in range(args.updates):
    obs, act, old_logp, ret, val, mean_reward = rollout(agent, args)
    adv = ret - val
    adv = (adv - adv.mean()) / (adv.std() + 1e-8)
    for _ in range(args.epochs):
        for idx in torch.randperm(len(obs)).chunk(args.minibatches):
            d = agent.dist(obs[idx])
            ratio = (d.log_prob(act[idx]).sum(-1) - old_logp[idx]).exp()
            pg = -torch.min(ratio * adv[idx], ratio.clamp(1 - args.clip, 1 + args.clip) * adv[idx]).mean()
            v = 0.5 * (agent.critic(obs[idx]).squeeze(-1) - ret[idx]).pow(2).mean()
            loss = pg + 0.5 * v - 0.001 * d.entropy().mean()
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            opt.step()
    print(update, f"reward {mean_reward:.4f}")
