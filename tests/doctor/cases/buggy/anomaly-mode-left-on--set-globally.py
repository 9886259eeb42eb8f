# expect: anomaly-mode-left-on [run,source]
# about: torch.autograd.set_detect_anomaly(True) at the head of the script, left from a search for a NaN
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.autograd.set_detect_anomaly(True)
torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
optimizer = torch.optim.NAdam(model.parameters(), lr=3e-3)
for epoch in range(5):
    model.train()
    for idx in torch.randperm(1400).split(50):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        print(epoch, round(loss.item(), 4), (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
