# expect: scheduler-wrong-cadence [run]
# about: ExponentialLR(gamma=0.9), meant for epochs, is stepped every batch: the rate is gone after one epoch
# allow: learning-rate-too-low
# allow: not-learning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from sklearn.datasets import load_digits

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
dl = DataLoader(TensorDataset(X[:1500], y[:1500]), batch_size=50, shuffle=True)
net = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
opt = torch.optim.Adam(net.parameters(), 1e-3)
scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.9)
for ep in range(5):
    net.train()
    for xb, yb in dl:
        opt.zero_grad()
        nn.functional.cross_entropy(net(xb), yb).backward()
        opt.step()
        scheduler.step()
    net.eval()
    with torch.no_grad():
        print(ep, (net(X[1500:]).argmax(1) == y[1500:]).float().mean().item(), scheduler.get_last_lr())
