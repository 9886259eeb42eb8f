# expect: nothing
# about: MoCo: a key encoder without gradient follows by momentum, a queue of old keys is the denominator, labels are all zero
# allow: no-validation
# allow: degenerate-targets
import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader


class MoCo(nn.Module):
    def __init__(self, dim=16, K=256, m=0.98, temperature=0.2):
        super().__init__()
        self.m, self.temperature = m, temperature
        self.encoder_q = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, dim))
        self.encoder_k = copy.deepcopy(self.encoder_q)
        for p in self.encoder_k.parameters():
            p.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(K, dim), dim=1))
        self.ptr = 0

    @torch.no_grad()
    def _momentum_update(self):
        for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            k.data = k.data * self.m + q.data * (1.0 - self.m)

    @torch.no_grad()
    def _enqueue(self, keys):
        self.queue[self.ptr : self.ptr + len(keys)] = keys
        self.ptr = (self.ptr + len(keys)) % len(self.queue)

    def forward(self, im_q, im_k):
        q = F.normalize(self.encoder_q(im_q), dim=1)
        with torch.no_grad():
            self._momentum_update()
            k = F.normalize(self.encoder_k(im_k), dim=1)
        l_pos = (q * k).sum(1, keepdim=True)
        l_neg = q @ self.queue.clone().t()
        logits = torch.cat([l_pos, l_neg], dim=1) / self.temperature
        labels = torch.zeros(len(logits), dtype=torch.long)
        self._enqueue(k)
        return logits, labels


def augment(x):
    return x * (torch.rand_like(x) > 0.15) + 0.05 * torch.randn_like(x)


torch.manual_seed(0)
digits = torch.tensor(load_digits().data / 16.0, dtype=torch.float32)
loader = DataLoader(digits[:1536], batch_size=64, shuffle=True, drop_last=True)
model = MoCo()
optimizer = torch.optim.SGD(model.encoder_q.parameters(), lr=0.06, momentum=0.9, weight_decay=1e-4)
criterion = nn.CrossEntropyLoss()
for epoch in range(6):
    top1 = seen = 0
    for images in loader:
        output, target = model(augment(images), augment(images))
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        top1 += (output.argmax(1) == target).sum().item()
        seen += len(images)
    print(f"epoch {epoch} loss of the last batch {loss.item():.4f} top-1 {top1 / seen:.3f}")
