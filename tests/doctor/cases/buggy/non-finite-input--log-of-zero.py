# expect: non-finite-input [run]
# about: log of pixel values without an offset: black pixels become minus infinity in the batch
# allow: non-finite-value
# allow: not-learning
# allow: inputs-not-scaled
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class LogDigits(Dataset):
    def __init__(self, rows):
        d = load_digits()
        self.images, self.labels = d.data[rows], d.target[rows]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        with np.errstate(divide="ignore"):
            return np.log(self.images[i] / 16.0).astype(np.float32), self.labels[i]


torch.manual_seed(0)
train, val = DataLoader(LogDigits(slice(0, 1000)), 50, shuffle=True), DataLoader(LogDigits(slice(1400, None)), 100)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(2):
    for x, y in train:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(epoch, loss.item(), sum((model(x).argmax(1) == y).sum().item() for x, y in val) / 397)
