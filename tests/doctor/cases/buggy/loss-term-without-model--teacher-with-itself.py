# expect: loss-term-without-model [run,source]
# about: the distillation term compares the teacher with the teacher's average copy, the student is not in it: a constant
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
xt, yt, xv, yv = x[:1400], y[:1400], x[1400:], y[1400:]


def mlp(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def batches():
    return torch.randperm(len(xt)).split(50)


teacher = mlp(96)
opt = torch.optim.Adam(teacher.parameters(), lr=3e-3)
for _ in range(3):
    for b in batches():
        opt.zero_grad()
        F.cross_entropy(teacher(xt[b]), yt[b]).backward()
        opt.step()
teacher.eval().requires_grad_(False)

student = mlp(12)
opt = torch.optim.Adam(student.parameters(), lr=3e-3)
for epoch in range(5):
    for b in batches():
        logits = student(xt[b])
        t_logits = teacher(xt[b])
        noisy_logits = teacher(xt[b] + 0.05 * torch.randn_like(xt[b]))
        hard = F.cross_entropy(logits, yt[b])
        soft = F.kl_div(F.log_softmax(noisy_logits / 2, 1), F.softmax(t_logits / 2, 1), reduction="batchmean") * 4
        loss = 0.3 * hard + 0.7 * soft
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, round(soft.item(), 4), (student(xv).argmax(1) == yv).float().mean().item())
