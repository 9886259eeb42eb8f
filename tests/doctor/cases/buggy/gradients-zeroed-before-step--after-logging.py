# expect: gradients-zeroed-before-step [run,source]
# about: backward, then the gradient norm is logged, then model.zero_grad(), then step: the step has nothing to do
# allow: weights-do-not-move
# allow: not-learning
# allow: missing-optimizer-step
import torch
from sklearn.datasets import make_moons
from torch import nn


def fit(model, x, y, steps=150, lr=0.1):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    log = []
    for step in range(steps):
        idx = torch.randint(0, len(x), (64,))
        loss = nn.functional.binary_cross_entropy_with_logits(model(x[idx]).squeeze(1), y[idx])
        loss.backward()
        log.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
        model.zero_grad()
        optimizer.step()
    return log


torch.manual_seed(0)
pts, lab = make_moons(1000, noise=0.1, random_state=0)
pts, lab = torch.tensor(pts).float(), torch.tensor(lab).float()
net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
norms = fit(net, pts[:800], lab[:800])
with torch.no_grad():
    acc = ((net(pts[800:]).squeeze(1) > 0).float() == lab[800:]).float().mean().item()
print("gradient norm first", round(norms[0], 4), "last", round(norms[-1], 4), "accuracy", acc)
