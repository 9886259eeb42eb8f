# expect: nothing
# about: KL(teacher || student) written out: the teacher's entropy is a constant term that belongs to the formula; Gaussian NLL with constants
import math
import torch
from torch import nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
teacher = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
opt = torch.optim.Adam(teacher.parameters(), 4e-3)
for i in torch.randperm(1400).split(28):
    opt.zero_grad()
    nn.functional.cross_entropy(teacher(X[i]), y[i]).backward()
    opt.step()
teacher.eval()
student = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
opt = torch.optim.Adam(student.parameters(), 1e-2)
for ep in range(4):
    for i in torch.randperm(1400).split(70):
        with torch.no_grad():
            pt = (teacher(X[i]) / 2).softmax(1)
        log_ps = (student(X[i]) / 2).log_softmax(1)
        kl = (pt * pt.clamp_min(1e-8).log()).sum(1).mean() - (pt * log_ps).sum(1).mean()
        loss = 4 * kl + 0.5 * math.log(2 * math.pi)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(ep, loss.item(), (student(X[1400:]).argmax(1) == y[1400:]).float().mean().item())
