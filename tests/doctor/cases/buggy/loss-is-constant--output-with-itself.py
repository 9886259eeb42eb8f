# expect: loss-is-constant [run]
# about: the reconstruction is compared with its own detached copy (the name was used again): the loss is 0 in every step
# allow: weights-do-not-move
# allow: not-learning
# allow: loss-term-without-model
# allow: no-validation
# allow: initial-loss-off
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

torch.manual_seed(0)
data = torch.tensor(load_digits().data / 16.0, dtype=torch.float32)
ae = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64), nn.Sigmoid())
optimizer = torch.optim.Adam(ae.parameters(), lr=1e-3)
criterion = nn.MSELoss()
for epoch in range(5):
    for img in DataLoader(data, batch_size=64, shuffle=True):
        img = ae(img)
        output = img
        loss = criterion(output, img.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("epoch [{}/5], loss:{:.4f}".format(epoch + 1, loss.item()))
