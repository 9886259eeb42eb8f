# expect: nothing
# about: REINFORCE, no reward within reach: returns as a numpy array, normalised by an epsilon, the loss by a loop of sums
import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
np.random.seed(0)
policy = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2), nn.Softmax(dim=-1))
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
for episode in range(70):
    pos, saved, rewards = 0.0, [], []
    for t in range(12):
        probs = policy(torch.tensor([pos, t / 12], dtype=torch.float32))
        m = torch.distributions.Categorical(probs)
        action = m.sample()
        saved.append(m.log_prob(action))
        pos += 0.1 if action.item() else -0.1
        rewards.append(float(pos > 5))
    returns = np.cumsum(rewards[::-1])[::-1].copy()
    returns = torch.from_numpy((returns - returns.mean()) / (returns.std() + 1e-8)).float()
    loss = 0
    for log_prob, R in zip(saved, returns):
        loss = loss - log_prob * R
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if episode % 10 == 0:
        print(episode, pos, sum(rewards))
