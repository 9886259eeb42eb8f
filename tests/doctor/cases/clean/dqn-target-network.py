# expect: nothing
# about: Q-learning: a second network never gets gradients and is loaded from the first now and then; few transitions, many replays
# allow: no-validation
import random
from collections import deque, namedtuple

import torch
from torch import nn, optim

Transition = namedtuple("Transition", "state action reward next_state done")


class QNet(nn.Module):
    def __init__(self, n_obs, n_actions):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_obs, 32), nn.ReLU(), nn.Linear(32, n_actions))

    def forward(self, x):
        return self.layers(x)


class Grid:
    """A 4x4 grid, goal in the far corner."""

    def reset(self):
        self.x = self.y = 0
        self.steps = 0
        return self.obs()

    def obs(self):
        return torch.tensor([self.x / 3, self.y / 3])

    def step(self, a):
        dx, dy = [(1, 0), (-1, 0), (0, 1), (0, -1)][a]
        self.x, self.y = min(3, max(0, self.x + dx)), min(3, max(0, self.y + dy))
        self.steps += 1
        goal = self.x == self.y == 3
        return self.obs(), 1.0 if goal else -0.05, goal or self.steps >= 25


random.seed(0)
torch.manual_seed(0)
policy_net, target_net = QNet(2, 4), QNet(2, 4)
target_net.load_state_dict(policy_net.state_dict())
target_net.eval()
optimizer = optim.AdamW(policy_net.parameters(), lr=2e-3, amsgrad=True)
criterion = nn.SmoothL1Loss()
memory = deque(maxlen=1500)
env, done_steps = Grid(), 0


def optimize_model():
    if len(memory) < 64:
        return
    batch = Transition(*zip(*random.sample(memory, 64)))
    q = policy_net(torch.stack(batch.state)).gather(1, torch.tensor(batch.action)[:, None]).squeeze(1)
    with torch.no_grad():
        best = target_net(torch.stack(batch.next_state)).max(1).values
    target = torch.tensor(batch.reward) + 0.95 * best * (1 - torch.tensor(batch.done, dtype=torch.float32))
    loss = criterion(q, target)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()


for episode in range(40):
    state, done, total = env.reset(), False, 0.0
    while not done:
        eps = max(0.05, 0.9 - done_steps / 300)
        done_steps += 1
        if random.random() < eps:
            action = random.randrange(4)
        else:
            with torch.no_grad():
                action = policy_net(state[None]).argmax(1).item()
        nxt, reward, done = env.step(action)
        memory.append(Transition(state, action, reward, nxt, bool(nxt.sum() == 2)))
        state, total = nxt, total + reward
        optimize_model()
        if done_steps % 50 == 0:
            target_net.load_state_dict(policy_net.state_dict())
    if episode % 10 == 9:
        print(f"episode {episode + 1} return {total:.2f}")
