# expect: detached-loss [run,source]
# about: the loss is made from the share of errors as a new tensor that requires grad: backward reaches nothing
# allow: weights-do-not-move
# allow: parameters-without-gradient
# allow: not-learning
# allow: loss-is-constant
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn
from torch.autograd import Variable

torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(X, y, stratify=y, random_state=0)
m, s = Xt.mean(0), Xt.std(0)
Xt, Xv = torch.tensor((Xt - m) / s).float(), torch.tensor((Xv - m) / s).float()
yt, yv = torch.tensor(yt), torch.tensor(yv)
model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)


def error_rate(logits, target):
    wrong = (logits.argmax(1) != target).float().mean()
    return Variable(torch.tensor(wrong.item()), requires_grad=True)


for epoch in range(8):
    for idx in torch.randperm(len(Xt)).split(32):
        optimizer.zero_grad()
        loss = error_rate(model(Xt[idx]), yt[idx])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(epoch, loss.item(), (model(Xv).argmax(1) == yv).float().mean().item())
