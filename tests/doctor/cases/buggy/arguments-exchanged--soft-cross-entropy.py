# expect: arguments-exchanged [run,source]
# about: F.cross_entropy(target, output) with one-hot float targets: it runs, as both have the same shape
# allow: logits-in-probability-loss
# allow: targets-out-of-range
# allow: not-learning
# allow: learning-rate-too-high
# allow: exploding-gradients
import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
mean, std = Xt.mean(0), Xt.std(0)
Xt, Xv = torch.tensor((Xt - mean) / std).float(), torch.tensor((Xv - mean) / std).float()
yt, yv = F.one_hot(torch.tensor(yt), 3).float(), F.one_hot(torch.tensor(yv), 3).float()
model = nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(15):
    for rows in torch.randperm(len(Xt)).split(31):
        optimizer.zero_grad()
        output, target = model(Xt[rows]), yt[rows]
        loss = F.cross_entropy(target, output)
        loss.backward()
        optimizer.step()
    if epoch % 3 == 2:
        with torch.no_grad():
            acc = (model(Xv).argmax(1) == yv.argmax(1)).float().mean().item()
        print(epoch, round(loss.item(), 3), round(acc, 3))
