# expect: step-before-backward [run]
# about: a class-based trainer calls its update before its backward; gradients cleared after the forward
# exits: 1
# allow: gradients-zeroed-before-step
# allow: weights-do-not-move
# allow: missing-zero-grad
# allow: not-learning
import torch
import torch.nn as nn
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split


class Learner:
    def __init__(self, model: nn.Module, lr: float = 0.05) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss()

    def compute_loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.criterion(self.model(x), y)

    def one_epoch(self, x, y, bs=16):
        self.model.train()
        for idx in torch.randperm(len(x)).split(bs):
            loss = self.compute_loss(x[idx], y[idx])
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.backward()
        return loss.item()


torch.manual_seed(0)
X, y = load_iris(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(torch.tensor(X).float(), torch.tensor(y), test_size=30, random_state=0)
m, s = Xt.mean(0), Xt.std(0)
Xt, Xv = (Xt - m) / s, (Xv - m) / s
learner = Learner(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
for e in range(12):
    print(e, learner.one_epoch(Xt, yt))
learner.model.eval()
with torch.no_grad():
    print("acc", (learner.model(Xv).argmax(1) == yv).float().mean().item())
