# expect: training-data-not-shuffled [run,source]
# about: wine rows are sorted by class; batches are slices in order, every epoch the same
# allow: same-order-every-epoch
# allow: learning-rate-too-high
# allow: degenerate-targets
import torch
from sklearn.datasets import load_wine
from torch import nn

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
X, y = torch.tensor(X).float(), torch.tensor(y)
held = torch.arange(len(X)) % 4 == 0
Xt, yt, Xv, yv = X[~held], y[~held], X[held], y[held]
mean, std = Xt.mean(0), Xt.std(0)
Xt, Xv = (Xt - mean) / std, (Xv - mean) / std
model = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
bs = 8
for epoch in range(6):
    for i in range(0, len(Xt), bs):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(Xt[i : i + bs]), yt[i : i + bs])
        loss.backward()
        opt.step()
    with torch.no_grad():
        out = model(Xv)
        print(epoch, "val", round(nn.functional.cross_entropy(out, yv).item(), 3), "guessed", torch.bincount(out.argmax(1), minlength=3).tolist())
