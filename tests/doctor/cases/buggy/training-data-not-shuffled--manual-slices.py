# expect: training-data-not-shuffled [run]
# about: no DataLoader: sorted images are sliced range(0, n, bs), the same way each epoch
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
order = np.argsort(d.target, kind="stable")  # one folder per class, as read from disk
images = d.images[order].astype(np.float32) / 16
labels = d.target[order]
test = np.zeros(len(labels), dtype=bool)
test[::6] = True
x_train, y_train = torch.from_numpy(images[~test])[:, None], torch.from_numpy(labels[~test])
x_test, y_test = torch.from_numpy(images[test])[:, None], torch.from_numpy(labels[test])

cnn = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 10)
)
optimizer = torch.optim.Adam(cnn.parameters(), lr=1e-3)
BATCH = 50
for epoch in range(4):
    for start in range(0, len(x_train), BATCH):
        xb = x_train[start : start + BATCH]
        yb = y_train[start : start + BATCH]
        loss = nn.functional.cross_entropy(cnn(xb), yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(epoch, float(loss), (cnn(x_test).argmax(1) == y_test).float().mean().item())
