# expect: training-in-eval-mode [run,source]
# about: model.train() stands before the epoch loop, model.eval() inside it: from the second epoch on dropout is off
# allow: overfitting
# allow: last-weights-kept
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, stratify=y, test_size=0.3, random_state=0)
m, s = a.mean(0), a.std(0)
a, b = torch.tensor((a - m) / s).float(), torch.tensor((b - m) / s).float()
ya, yb = torch.tensor(ya).float(), torch.tensor(yb).float()
net = nn.Sequential(nn.Linear(30, 48), nn.ReLU(), nn.Dropout(0.5), nn.Linear(48, 1), nn.Flatten(0))
opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
bce = nn.BCEWithLogitsLoss()
net.train()
for epoch in range(10):
    for i in torch.randperm(len(a)).split(32):
        loss = bce(net(a[i]), ya[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    with torch.inference_mode():
        print(epoch, net.training, round(bce(net(b), yb).item(), 4))
