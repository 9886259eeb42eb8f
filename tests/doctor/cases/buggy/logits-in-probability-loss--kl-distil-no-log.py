# expect: logits-in-probability-loss [run]
# about: distillation with KLDivLoss whose input is a softmax and not a log-softmax; beside a right cross-entropy
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


def mlp(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def get_batch(X, y, size=64):
    idx = torch.randint(len(X), (size,))
    return X[idx], y[idx]


torch.manual_seed(7)
digits = load_digits()
X = torch.tensor(digits.data, dtype=torch.float32) / 16
y = torch.tensor(digits.target)

teacher = mlp(128)
opt = torch.optim.Adam(teacher.parameters(), lr=3e-3)
for _ in range(100):
    xb, yb = get_batch(X, y)
    opt.zero_grad()
    F.cross_entropy(teacher(xb), yb).backward()
    opt.step()
teacher.eval()

student = mlp(16)
T, alpha = 3.0, 0.7
kd = nn.KLDivLoss(reduction="batchmean")
opt = torch.optim.Adam(student.parameters(), lr=3e-3)
for step in range(100):
    xb, yb = get_batch(X, y)
    with torch.no_grad():
        soft_targets = F.softmax(teacher(xb) / T, dim=1)
    logits = student(xb)
    soft_loss = kd(F.softmax(logits / T, dim=1), soft_targets) * T * T
    loss = alpha * soft_loss + (1 - alpha) * F.cross_entropy(logits, yb)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        print(step, loss.item(), soft_loss.item())
