# expect: nothing
# about: distillation: KLDivLoss takes log-softmax of the student and softmax of the teacher, both divided by a temperature, scaled by T squared
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

T, ALPHA = 4.0, 0.7
torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
train_set, val_x, val_y = TensorDataset(x[:1350], y[:1350]), x[1350:], y[1350:]


def fit(model, loss_of, epochs, lr):
    opt = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        model.train()
        for xb, yb in DataLoader(train_set, batch_size=54, shuffle=True):
            opt.zero_grad()
            loss_of(model(xb), xb, yb).backward()
            opt.step()
    model.eval()
    with torch.no_grad():
        return (model(val_x).argmax(1) == val_y).float().mean().item()


teacher = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, 10))
print("teacher", fit(teacher, lambda out, xb, yb: F.cross_entropy(out, yb), 5, 3e-3))
teacher.eval()


def distil(out, xb, yb):
    with torch.no_grad():
        soft = F.softmax(teacher(xb) / T, dim=1)
    kd = F.kl_div(F.log_softmax(out / T, dim=1), soft, reduction="batchmean") * T * T
    return ALPHA * kd + (1 - ALPHA) * F.cross_entropy(out, yb)


student = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
print("student", fit(student, distil, 6, 5e-3))
