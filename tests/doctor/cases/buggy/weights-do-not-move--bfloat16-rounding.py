# expect: weights-do-not-move [run]
# about: weights in pure bfloat16 and updates of 1e-5: each update is rounded away
# allow: learning-rate-too-low
# allow: not-learning
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x = torch.tensor(d.data / 16.0, dtype=torch.bfloat16)
y = torch.tensor(d.target)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
for m in model:
    if isinstance(m, nn.Linear):
        m.weight.data = m.weight.data.sign() * (0.05 + m.weight.data.abs())
        m.bias.data.add_(0.3)
model = model.to(torch.bfloat16)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0)
start = [p.detach().clone() for p in model.parameters()]
for epoch in range(4):
    for idx in torch.randperm(1400).split(56):
        loss = nn.functional.cross_entropy(model(x[idx]).float(), y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        moved = sum((p != s).sum().item() for p, s in zip(model.parameters(), start))
        val = nn.functional.cross_entropy(model(x[1400:]).float(), y[1400:]).item()
    print(epoch, f"val {val:.4f} weights moved {moved}")
