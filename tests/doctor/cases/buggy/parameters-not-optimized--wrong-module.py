# expect: parameters-not-optimized [run]
# accept: stale-optimizer
# accept: weights-do-not-move
# accept: parameters-without-gradient
# about: distillation: the optimizer got the teacher's parameters, the student gets the gradients
# allow: missing-zero-grad
# allow: not-learning
import torch
from torch import nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
teacher = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
topt = torch.optim.Adam(teacher.parameters(), 3e-3)
for i in torch.randperm(1400).split(35):
    topt.zero_grad()
    F.cross_entropy(teacher(X[i]), y[i]).backward()
    topt.step()
teacher.eval()
student = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
optimizer = torch.optim.Adam(teacher.parameters(), 1e-3)
for ep in range(3):
    student.train()
    for i in torch.randperm(1400).split(50):
        with torch.no_grad():
            t = teacher(X[i])
        s = student(X[i])
        loss = F.kl_div(F.log_softmax(s / 2, 1), F.softmax(t / 2, 1), reduction="batchmean") * 4 + F.cross_entropy(s, y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():
        print(ep, (student(X[1400:]).argmax(1) == y[1400:]).float().mean().item())
