# expect: weights-do-not-move [run]
# accept: loss-is-constant
# accept: not-learning
# about: a hinge loss with labels 0/1 given where -1/+1 are meant and the clamp taken from above: exactly 0 from the first step on
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
X = torch.tensor(X, dtype=torch.float32)
X = (X - X[:400].mean(0)) / X[:400].std(0)
y = torch.tensor(y, dtype=torch.float32)
svm = nn.Linear(30, 1)
opt = torch.optim.SGD(svm.parameters(), lr=0.01, weight_decay=0.0)
for epoch in range(10):
    for i in range(0, 400, 40):
        score = svm(X[i : i + 40]).squeeze(1)
        margin = 1 - y[i : i + 40] * torch.tanh(score)
        loss = torch.clamp(margin, max=0).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        acc = ((svm(X[400:]).squeeze(1) > 0).float() == y[400:]).float().mean()
    print(epoch, loss.item(), acc.item())
