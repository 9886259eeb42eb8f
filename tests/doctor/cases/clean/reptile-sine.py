# expect: nothing
# about: Reptile: every task gets a copied model with a new SGD optimizer; the meta weights move by interpolation under no_grad, without any optimizer
import copy
import math

import torch
from torch import nn


class Task:
    def __init__(self, g):
        self.amp = 0.5 + 1.5 * torch.rand(1, generator=g)
        self.phase = math.pi * torch.rand(1, generator=g)
        self.g = g

    def batch(self, n):
        x = 4 * torch.rand(n, 1, generator=self.g) - 2
        return x, self.amp * torch.sin(x + self.phase)


def adapt(meta, task, steps, lr=0.02):
    """A copy of meta after a few steps on one task."""
    learner = copy.deepcopy(meta)
    opt = torch.optim.SGD(learner.parameters(), lr=lr)
    x, y = task.batch(10)
    for _ in range(steps):
        opt.zero_grad()
        nn.functional.mse_loss(learner(x), y).backward()
        opt.step()
    return learner


@torch.no_grad()
def test_error(learner, task):
    x, y = task.batch(100)
    return nn.functional.mse_loss(learner(x), y).item()


torch.manual_seed(0)
gen = torch.Generator().manual_seed(0)
meta = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
for it in range(150):
    fast = adapt(meta, Task(gen), steps=8)
    with torch.no_grad():
        for p, q in zip(meta.parameters(), fast.parameters()):
            p += 0.2 * (q - p)
    if it % 50 == 49:
        tg = torch.Generator().manual_seed(5)
        errors = [test_error(adapt(meta, t, 16), t) for t in [Task(tg) for _ in range(10)]]
        print("meta iteration", it + 1, "error on new tasks after 16 steps", round(sum(errors) / 10, 4))
