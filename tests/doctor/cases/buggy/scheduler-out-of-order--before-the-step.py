# expect: scheduler-out-of-order [run,source]
# about: in each batch scheduler.step() comes before optimizer.step(): the first rate of the schedule is never used
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=56, shuffle=True)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
total = 4 * len(loader)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total))
global_step = 0
while global_step < total:
    for xb, yb in loader:
        scheduler.step()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(xb), yb).backward()
        optimizer.step()
        global_step += 1
    with torch.no_grad():
        print(global_step, scheduler.get_last_lr(), (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
