# expect: nothing
# about: stochastic weight averaging; update_bn runs the training loader through the averaged model in train mode before it is evaluated
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
order = torch.randperm(len(x))
tr, va = order[:1400], order[1400:]
loader = DataLoader(TensorDataset(x[tr], y[tr]), batch_size=50, shuffle=True)
val_loader = DataLoader(TensorDataset(x[va], y[va]), batch_size=200)


def evaluate(m):
    m.eval()
    correct = 0
    with torch.no_grad():
        for a, b in val_loader:
            correct += (m(a).argmax(1) == b).sum().item()
    return correct / len(va)


model = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
swa_model = AveragedModel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
swa_start = 4
swa_scheduler = SWALR(optimizer, swa_lr=0.02, anneal_epochs=2)
loss_fn = nn.CrossEntropyLoss()
for epoch in range(8):
    model.train()
    for input, target in loader:
        optimizer.zero_grad()
        loss_fn(model(input), target).backward()
        optimizer.step()
    if epoch >= swa_start:
        swa_model.update_parameters(model)
        swa_scheduler.step()
    else:
        scheduler.step()
    print(epoch, "model", evaluate(model))
update_bn(loader, swa_model)
print("averaged", evaluate(swa_model))
