# expect: nothing
# about: layers are thawed one after the other by add_param_group; until then they are neither in the optimizer nor do they need grad
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data / 16.0, dtype=torch.float32)
y = torch.tensor(digits.target)
small, big = y < 5, y >= 5


def loader(xs, ys):
    return DataLoader(TensorDataset(xs, ys), batch_size=48, shuffle=True)


def train_one(model, dl, optimizer):
    model.train()
    for xb, yb in dl:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(xb), yb).backward()
        optimizer.step()


def accuracy(model, xs, ys):
    model.eval()
    with torch.no_grad():
        return (model(xs).argmax(1) == ys).float().mean().item()


layers = [nn.Linear(64, 40), nn.Linear(40, 40), nn.Linear(40, 5)]
net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
for _ in range(4):
    train_one(net, loader(x[small][:700], y[small][:700]), opt)
print("pretrained on 0-4:", accuracy(net, x[small][700:], y[small][700:]))

# fine-tune on 5-9: head first, then thaw from the top down
net[4] = nn.Linear(40, 5)
for p in net.parameters():
    p.requires_grad_(False)
for p in net[4].parameters():
    p.requires_grad_(True)
opt = torch.optim.Adam(net[4].parameters(), lr=3e-3)
schedule = {2: net[2], 4: net[0]}
target_dl = loader(x[big][:650], y[big][:650] - 5)
for epoch in range(6):
    if epoch in schedule:
        for p in schedule[epoch].parameters():
            p.requires_grad_(True)
        opt.add_param_group({"params": list(schedule[epoch].parameters()), "lr": 1e-3})
    train_one(net, target_dl, opt)
    print("epoch", epoch, "groups", len(opt.param_groups), "acc", accuracy(net, x[big][650:], y[big][650:] - 5))
