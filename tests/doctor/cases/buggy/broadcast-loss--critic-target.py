# expect: broadcast-loss [run]
# about: DQN: q.gather(1, a) is (N, 1), the target r + gamma max Q' is (N,): MSELoss over all pairs
# allow: input-ignored
# allow: not-learning
import random

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
policy_net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
target_net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
target_net.load_state_dict(policy_net.state_dict())
optimizer = torch.optim.Adam(policy_net.parameters(), lr=1e-3)
criterion = nn.MSELoss()
memory = []
state = torch.randn(4)
for frame in range(220):
    action = random.randrange(2)
    nxt = 0.9 * state + 0.3 * (2 * action - 1) + 0.1 * torch.randn(4)
    memory.append((state, action, float(-nxt.abs().sum()), nxt))
    state = nxt
    if len(memory) < 64 or frame % 2:
        continue
    s, a, r, n = zip(*random.sample(memory, 32))
    q_values = policy_net(torch.stack(s)).gather(1, torch.tensor(a).unsqueeze(1))
    with torch.no_grad():
        expected = torch.tensor(r) + 0.9 * target_net(torch.stack(n)).max(1)[0]
    loss = criterion(q_values, expected)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if frame % 40 == 0:
        target_net.load_state_dict(policy_net.state_dict())
        print(frame, loss.item())
