# expect: nothing
# about: BYOL: targets come from an averaged copy under no_grad, no negatives; a linear probe on detached features follows
import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), d.target
x_train, x_test, y_train, y_test = x[:1400], x[1400:], y[:1400], y[1400:]


def projector(i, h, o):
    return nn.Sequential(nn.Linear(i, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, o))


online = projector(64, 64, 24)
predictor = projector(24, 32, 24)
target = copy.deepcopy(online).requires_grad_(False)
opt = torch.optim.Adam([*online.parameters(), *predictor.parameters()], lr=1e-3, weight_decay=1e-6)


def view(batch):
    keep = (torch.rand_like(batch) > 0.2).float()
    return batch * keep * (0.8 + 0.4 * torch.rand(len(batch), 1))


def regression_loss(p, z):
    return 2 - 2 * F.cosine_similarity(p, z, dim=-1).mean()


step = 0
while step < 150:
    for idx in torch.randperm(len(x_train)).split(100):
        a, b = view(x_train[idx]), view(x_train[idx])
        with torch.no_grad():
            ta, tb = target(a), target(b)
        loss = regression_loss(predictor(online(a)), tb) + regression_loss(predictor(online(b)), ta)
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            for po, pt in zip(online.parameters(), target.parameters()):
                pt.lerp_(po, 0.01)
        step += 1
    print(step, round(loss.item(), 4))

online.eval()
with torch.no_grad():
    f_train, f_test = online(x_train).numpy(), online(x_test).numpy()
probe = LogisticRegression(max_iter=500).fit(f_train, y_train)
print("linear probe on held-out digits", round(probe.score(f_test, y_test), 3))
