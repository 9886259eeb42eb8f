# expect: retained-graph [run,source]
# about: the outputs of all training batches are collected with their graphs for a report at the end
# allow: memory-grows
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
all_outputs, all_targets = [], []
for epoch in range(3):
    model.train()
    for inputs, targets in loader:
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        all_outputs.append(outputs)
        all_targets.append(targets)
    model.eval()
    with torch.no_grad():
        print(epoch, "val", (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
seen = torch.cat(all_outputs).argmax(1)
print(confusion_matrix(torch.cat(all_targets), seen).trace() / len(seen))
