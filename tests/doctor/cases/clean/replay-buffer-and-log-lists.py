# expect: nothing
# about: DQN on a small chain: a replay buffer that fills up to its capacity, lists of floats; memory grows, then levels off
import random
from collections import deque

import torch
from torch import nn

random.seed(0)
torch.manual_seed(0)
buffer = deque(maxlen=600)
q = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
target_q = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
target_q.load_state_dict(q.state_dict())
opt = torch.optim.Adam(q.parameters(), lr=5e-3)
losses, returns = [], []
eye = torch.eye(6)
s, ret, eps = 0, 0.0, 0.5
for t in range(700):
    with torch.no_grad():
        a = random.randrange(2) if random.random() < eps else int(q(eye[s]).argmax())
    s2 = min(5, s + 1) if a == 1 else max(0, s - 1)
    r = 1.0 if s2 == 5 else -0.02
    done = s2 == 5
    buffer.append((eye[s], a, r, eye[s2], float(done)))
    ret += r
    s = 0 if done else s2
    if done:
        returns.append(ret)
        ret = 0.0
    if len(buffer) >= 64 and t % 5 == 0:
        S, A, R, S2, D = zip(*random.sample(buffer, 32))
        S, S2 = torch.stack(S), torch.stack(S2)
        A, R, D = torch.tensor(A), torch.tensor(R), torch.tensor(D)
        with torch.no_grad():
            goal = R + 0.9 * (1 - D) * target_q(S2).max(1).values
        loss = nn.functional.smooth_l1_loss(q(S).gather(1, A[:, None]).squeeze(1), goal)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    if t % 100 == 0:
        target_q.load_state_dict(q.state_dict())
        eps *= 0.8
print(sum(losses[-20:]) / 20, len(returns), q(eye).argmax(1).tolist())
