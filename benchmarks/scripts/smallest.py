"""The smallest step: two layers, 32 rows a batch. Prints the seconds of its loop."""

import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

steps = int(sys.argv[1])
torch.manual_seed(0)
x = torch.randn(6400, 8)
y = x @ torch.randn(8, 1) + 0.1 * torch.randn(6400, 1)
train = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
held_out = DataLoader(TensorDataset(x[:640] + 1, y[:640]), batch_size=64)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
criterion = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
started = time.perf_counter()
for _ in range(steps // len(train)):
    model.train()
    for inputs, targets in train:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for inputs, targets in held_out:
            criterion(model(inputs), targets)
print(time.perf_counter() - started)
