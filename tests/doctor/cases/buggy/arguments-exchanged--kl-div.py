# expect: arguments-exchanged [run,source]
# about: F.kl_div(teacher_probabilities, student_log_probabilities): input and target the wrong way round, and the logarithm of a negative "target" is NaN
# allow: logits-in-probability-loss
# allow: not-learning
# allow: non-finite-value
# allow: exploding-gradients
# allow: learning-rate-too-high
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
xt, yt, xv, yv = x[:1400], y[:1400], x[1400:], y[1400:]


def steps(model, objective, epochs):
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for b in torch.randperm(1400).split(50):
            opt.zero_grad()
            objective(b).backward()
            opt.step()


teacher = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
steps(teacher, lambda b: F.cross_entropy(teacher(xt[b]), yt[b]), 3)
teacher.requires_grad_(False)
student = nn.Sequential(nn.Linear(64, 10))


def distil(b):
    student_log_prob = F.log_softmax(student(xt[b]), dim=1)
    teacher_prob = F.softmax(teacher(xt[b]), dim=1)
    return F.kl_div(teacher_prob, student_log_prob, reduction="batchmean")


for r in range(4):
    steps(student, distil, 1)
    with torch.no_grad():
        print(r, "student", (student(xv).argmax(1) == yv).float().mean().item(), "loss", distil(torch.arange(200)).item())
