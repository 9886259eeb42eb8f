# expect: nothing
# about: a short trial of REINFORCE where the goal is never reached within it: all returns are 0 and so are the gradients (exploration, no mistake in the code)
import random

import torch
import torch.nn as nn
import torch.nn.functional as F


class GridWorld:
    def __init__(self, size=12):
        self.size = size

    def reset(self):
        self.pos = [0, 0]
        return self.observe()

    def observe(self):
        return torch.tensor(self.pos, dtype=torch.float32) / self.size

    def step(self, action):
        dx, dy = [(0, 1), (1, 0), (0, -1), (-1, 0)][action]
        self.pos = [min(self.size - 1, max(0, self.pos[0] + dx)), min(self.size - 1, max(0, self.pos[1] + dy))]
        done = self.pos == [self.size - 1, self.size - 1]
        return self.observe(), float(done), done


random.seed(0)
torch.manual_seed(0)
env = GridWorld()
pi = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 4))
opt = torch.optim.Adam(pi.parameters(), lr=1e-2)
gamma = 0.99
for episode in range(80):
    obs, logps, rewards = env.reset(), [], []
    for t in range(20):
        logits = pi(obs)
        action = torch.multinomial(F.softmax(logits, dim=-1), 1).item()
        logps.append(F.log_softmax(logits, dim=-1)[action])
        obs, reward, done = env.step(action)
        rewards.append(reward)
        if done:
            break
    G, policy_loss = 0.0, []
    for logp, r in zip(reversed(logps), reversed(rewards)):
        G = r + gamma * G
        policy_loss.append(-logp * G)
    opt.zero_grad()
    torch.stack(policy_loss).sum().backward()
    opt.step()
    if episode % 20 == 0:
        print("episode", episode, "return", G)
