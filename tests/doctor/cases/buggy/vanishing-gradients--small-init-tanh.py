# expect: vanishing-gradients [run]
# about: twelve tanh layers with weights of standard deviation 0.02: the first layers' gradients are some ten orders below the last's
# allow: not-learning
# allow: input-ignored
# allow: learning-rate-too-low
import torch
from sklearn.datasets import load_digits
from torch import nn


class Plain(nn.Module):
    def __init__(self, depth=12, width=48):
        super().__init__()
        dims = [64] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims, dims[1:]))
        self.out = nn.Linear(width, 10)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0.0, 0.02)
                nn.init.zeros_(m.bias)

    def forward(self, x):
        for layer in self.hidden:
            x = torch.tanh(layer(x))
        return self.out(x)


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
model = Plain()
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(5):
    for idx in torch.randperm(1400).split(50):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
        loss.backward()
        opt.step()
    first, last = model.hidden[0].weight.grad.norm().item(), model.out.weight.grad.norm().item()
    with torch.no_grad():
        acc = (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    print(f"epoch {epoch} gradient first {first:.1e} last {last:.1e} acc {acc:.3f}")
