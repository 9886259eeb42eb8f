# expect: nothing
# about: a rate finder raises the rate from 1e-5 until the loss blows up, then puts the weights back and trains with a tenth of it
import copy

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def lr_find(model, loader, criterion, start=1e-5, end=3.0, steps=60):
    """Learning-rate range test; the model is given back as it was."""
    saved = copy.deepcopy(model.state_dict())
    opt = torch.optim.SGD(model.parameters(), lr=start, momentum=0.9)
    mult = (end / start) ** (1 / (steps - 1))
    best, smooth, history = float("inf"), None, []
    data = iter(loader)
    for step in range(steps):
        try:
            x, y = next(data)
        except StopIteration:
            data = iter(loader)
            x, y = next(data)
        opt.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        opt.step()
        smooth = loss.item() if smooth is None else 0.8 * smooth + 0.2 * loss.item()
        history.append((opt.param_groups[0]["lr"], smooth))
        best = min(best, smooth)
        if smooth > 3 * best and step > 10:
            break
        opt.param_groups[0]["lr"] *= mult
    model.load_state_dict(saved)
    return min(history, key=lambda h: h[1])[0] / 10


torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(X / 16.0, y, test_size=0.2, stratify=y, random_state=3)
Xt, Xv, yt, yv = torch.tensor(Xt).float(), torch.tensor(Xv).float(), torch.tensor(yt), torch.tensor(yv)
loader = DataLoader(TensorDataset(Xt, yt), batch_size=48, shuffle=True)
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
criterion = nn.CrossEntropyLoss()
lr = lr_find(model, loader, criterion)
print("rate found", lr)
opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
for epoch in range(6):
    model.train()
    for x, t in loader:
        opt.zero_grad()
        criterion(model(x), t).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        print(epoch, (model(Xv).argmax(1) == yv).float().mean().item())
