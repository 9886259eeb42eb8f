# expect: parameters-not-optimized [run,source]
# about: two task heads live in a plain dict on the module: model.parameters() does not know them
# allow: missing-zero-grad
import torch
from sklearn.datasets import load_digits
from torch import nn


class TwoTasks(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.heads = {"digit": nn.Linear(32, 10), "parity": nn.Linear(32, 2)}

    def forward(self, x):
        h = self.trunk(x)
        return {name: head(h) for name, head in self.heads.items()}


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
model = TwoTasks()
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
ce = nn.CrossEntropyLoss()
print("parameters the optimizer has:", sum(p.numel() for g in opt.param_groups for p in g["params"]))
for epoch in range(5):
    for b in torch.randperm(1400).split(50):
        out = model(x[b])
        loss = ce(out["digit"], y[b]) + 0.5 * ce(out["parity"], y[b] % 2)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        out = model(x[1400:])
    print(epoch, (out["digit"].argmax(1) == y[1400:]).float().mean().item(), (out["parity"].argmax(1) == y[1400:] % 2).float().mean().item())
