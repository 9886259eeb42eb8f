# expect: training-under-no-grad [run,source]
# about: validation calls torch.set_grad_enabled(False) and nobody turns it on again: the second epoch's backward fails
# exits: 1
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn


def validate(model, x, y):
    torch.set_grad_enabled(False)
    model.eval()
    return nn.functional.cross_entropy(model(x), y).item()


def train(model, opt, x, y):
    model.train()
    for idx in torch.randperm(len(x)).split(20):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
        loss.backward()
        opt.step()


torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, stratify=y, random_state=0)
m, s = a.mean(0), a.std(0)
a, b, ya, yb = torch.tensor((a - m) / s).float(), torch.tensor((b - m) / s).float(), torch.tensor(ya), torch.tensor(yb)
model = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(5):
    train(model, opt, a, ya)
    print(epoch, validate(model, b, yb))
