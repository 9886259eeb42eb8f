# expect: anomaly-mode-left-on [run,source]
# about: the whole training runs inside torch.autograd.profiler.profile with shapes and stacks recorded
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=70, shuffle=True)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def train(epochs):
    for epoch in range(epochs):
        net.train()
        for a, b in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(a), b).backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            print(epoch, (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item())


with torch.autograd.profiler.profile(record_shapes=True) as prof:
    train(epochs=2)
print("events recorded", len(prof.function_events))
