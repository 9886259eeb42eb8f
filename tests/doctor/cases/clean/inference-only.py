# expect: nothing
# about: nothing is trained: a closed-form readout is put into a model, which then scores data in eval mode
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
train, test = slice(0, 1400), slice(1400, None)
features = nn.Sequential(nn.Linear(64, 300), nn.Tanh())
readout = nn.Linear(300, 10)
with torch.inference_mode():
    h = features(x[train]).numpy()
    onehot = np.eye(10)[d.target[train]]
    w = np.linalg.solve(h.T @ h + 0.1 * np.eye(300), h.T @ onehot)
with torch.no_grad():
    readout.weight.copy_(torch.tensor(w.T, dtype=torch.float32))
    readout.bias.zero_()
model = nn.Sequential(features, nn.Dropout(0.1), readout).eval()
correct = 0
for batch, labels in DataLoader(TensorDataset(x[test], y[test]), batch_size=64):
    with torch.inference_mode():
        correct += (model(batch).argmax(1) == labels).sum().item()
print("random features and ridge:", correct / len(y[test]))
