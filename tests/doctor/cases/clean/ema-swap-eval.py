# expect: nothing
# about: evaluation with EMA weights swapped into the live model, then swapped back; eval/train handled by a context manager
import contextlib
import torch
from torch import nn
from sklearn.datasets import load_wine


class EMA:
    def __init__(self, model, decay):
        self.model, self.decay = model, decay
        self.shadow = {n: p.detach().clone() for n, p in model.named_parameters()}

    def update(self):
        for n, p in self.model.named_parameters():
            self.shadow[n].mul_(self.decay).add_(p.detach(), alpha=1 - self.decay)

    @contextlib.contextmanager
    def applied(self):
        backup = {n: p.data.clone() for n, p in self.model.named_parameters()}
        for n, p in self.model.named_parameters():
            p.data.copy_(self.shadow[n])
        was = self.model.training
        self.model.eval()
        try:
            yield self.model
        finally:
            self.model.train(was)
            for n, p in self.model.named_parameters():
                p.data.copy_(backup[n])


torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
p = torch.randperm(178)
X, y = torch.tensor(X).float()[p], torch.tensor(y)[p]
X = (X - X[:128].mean(0)) / X[:128].std(0)
net = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3))
opt = torch.optim.AdamW(net.parameters(), lr=5e-3)
ema = EMA(net, 0.9)
for ep in range(15):
    for i in torch.randperm(128).split(16):
        opt.zero_grad()
        nn.functional.cross_entropy(net(X[i]), y[i]).backward()
        opt.step()
        ema.update()
    with ema.applied() as m, torch.no_grad():
        acc = (m(X[128:]).argmax(1) == y[128:]).float().mean().item()
    if ep % 5 == 4:
        print(ep, acc)
