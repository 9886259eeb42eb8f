# expect: nothing
# about: an inner search over rates on the training part, then a refit on all of it, then the outer test: many short trainings and one final
import numpy as np
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import StratifiedKFold
from torch import nn


def standardise(fit_on, *others):
    mean, std = fit_on.mean(0), fit_on.std(0)
    return [torch.tensor((a - mean) / std, dtype=torch.float32) for a in (fit_on, *others)]


def train(X, y, lr, epochs=12):
    model = nn.Sequential(nn.Linear(13, 12), nn.Tanh(), nn.Linear(12, 3))
    opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(epochs):
        for idx in torch.randperm(len(X)).split(16):
            opt.zero_grad()
            nn.functional.cross_entropy(model(X[idx]), y[idx]).backward()
            opt.step()
    return model


@torch.no_grad()
def accuracy(model, X, y):
    return (model(X).argmax(1) == y).float().mean().item()


torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
labels = torch.tensor(y)
outer_scores = []
for dev, test in StratifiedKFold(3, shuffle=True, random_state=1).split(X, y):
    inner_scores = {}
    for lr in (0.003, 0.02):
        scores = []
        for a, b in StratifiedKFold(2, shuffle=True, random_state=2).split(X[dev], y[dev]):
            Xa, Xb = standardise(X[dev][a], X[dev][b])
            scores.append(accuracy(train(Xa, labels[dev][a], lr), Xb, labels[dev][b]))
        inner_scores[lr] = np.mean(scores)
    best = max(inner_scores, key=inner_scores.get)
    # refit on the whole development part with the rate chosen inside
    Xd, Xt = standardise(X[dev], X[test])
    outer_scores.append(accuracy(train(Xd, labels[dev], best), Xt, labels[test]))
    print("rate", best, "outer accuracy", round(outer_scores[-1], 3))
print("estimate", round(float(np.mean(outer_scores)), 3))
