# expect: nothing
# about: CLIP-like loss: cross-entropy over both dimensions of a similarity matrix; argmax over dim 0 is the second direction
import torch
import torch.nn.functional as F
from torch import nn


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 12))
        self.text = nn.Sequential(nn.Linear(15, 32), nn.ReLU(), nn.Linear(32, 12))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, a, b):
        a, b = F.normalize(self.image(a), dim=-1), F.normalize(self.text(b), dim=-1)
        return self.logit_scale.exp() * a @ b.t()


torch.manual_seed(0)
z = torch.randn(640, 6)
images = torch.tanh(z @ torch.randn(6, 20)) + 0.05 * torch.randn(640, 20)
texts = torch.tanh(z @ torch.randn(6, 15)) + 0.05 * torch.randn(640, 15)
model = TwoTowers()
opt = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(120):
    i = torch.randperm(512)[:32]
    logits = model(images[i], texts[i])
    labels = torch.arange(32)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 0:
        with torch.no_grad():
            held = model(images[512:], texts[512:])
            gold = torch.arange(128)
            i2t = (held.argmax(dim=1) == gold).float().mean().item()
            t2i = (held.argmax(dim=0) == gold).float().mean().item()
        print(step, loss.item(), i2t, t2i)
