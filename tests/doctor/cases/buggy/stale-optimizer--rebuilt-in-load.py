# expect: stale-optimizer [run,source]
# about: a trainer makes its optimizer, then load() builds a new model and copies weights into it; the optimizer still has the old one
# allow: parameters-not-optimized
# allow: parameters-without-gradient
# allow: weights-do-not-move
# allow: missing-zero-grad
# allow: not-learning
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn


def network():
    return nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))


class Trainer:
    def __init__(self, lr=5e-3):
        self.model = network()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)

    def load(self, state):
        self.model = network()
        self.model.load_state_dict(state)

    def fit(self, x, y, epochs):
        for _ in range(epochs):
            for idx in torch.randperm(len(x)).split(32):
                self.optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.model(x[idx]), y[idx])
                loss.backward()
                self.optimizer.step()

    def score(self, x, y):
        with torch.no_grad():
            return nn.functional.cross_entropy(self.model(x), y).item()


torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, stratify=y, random_state=0)
m, s = a.mean(0), a.std(0)
a, b, ya, yb = torch.tensor((a - m) / s).float(), torch.tensor((b - m) / s).float(), torch.tensor(ya), torch.tensor(yb)
trainer = Trainer()
trainer.load(network().state_dict())
for r in range(4):
    trainer.fit(a, ya, epochs=3)
    print("round", r, "val loss", trainer.score(b, yb))
