# expect: step-before-backward [run,source]
# about: the training function begins with optimizer.step() and zero_grad, then goes forward and backward: each gradient is used one batch late
# allow: scheduler-out-of-order
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=70, shuffle=True)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(4):
    for data, target in loader:
        optimizer.step()
        optimizer.zero_grad()
        output = model(data)
        loss = nn.functional.cross_entropy(output, target)
        loss.backward()
    with torch.no_grad():
        print(epoch, (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
