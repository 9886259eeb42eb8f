# expect: nothing
# about: REINFORCE in a long corridor: for many episodes no reward comes, the loss is 0 and no weight moves; then it does
import torch
from torch import nn
from torch.distributions import Categorical


class Policy(nn.Module):
    def __init__(self, n=9):
        super().__init__()
        self.affine = nn.Linear(n, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, s):
        return torch.softmax(self.head(torch.relu(self.affine(s))), dim=-1)


def run_episode(policy, n=9, limit=18):
    pos, log_probs, rewards = 0, [], []
    for _ in range(limit):
        state = torch.zeros(n)
        state[pos] = 1
        dist = Categorical(policy(state))
        action = dist.sample()
        log_probs.append(dist.log_prob(action))
        pos = max(0, pos + (1 if action.item() else -1))
        done = pos == n - 1
        rewards.append(1.0 if done else 0.0)
        if done:
            break
    return log_probs, rewards


torch.manual_seed(4)
policy = Policy()
optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
for episode in range(150):
    log_probs, rewards = run_episode(policy)
    returns, g = [], 0.0
    for r in reversed(rewards):
        g = r + 0.98 * g
        returns.insert(0, g)
    loss = -(torch.stack(log_probs) * torch.tensor(returns)).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if episode % 15 == 0:
        print(episode, sum(rewards), len(rewards))
