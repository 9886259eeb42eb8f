"""Transfer learning: a frozen stem whose BatchNorm stays in eval mode, a new head at ten times the rate."""

from collections import OrderedDict

import torch
from torch import nn

import trueloop as tl

tl.seed_all(0)
labels = torch.arange(256) % 2
images = torch.randn(256, 1, 8, 8)
images[labels == 1, :, :, :4] += 1.0  # is the left half brighter?

stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())  # say that these two were trained
body = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())  # on many other images
head = nn.Sequential(nn.Flatten(), nn.Linear(16 * 8 * 8, 2))
model = nn.Sequential(OrderedDict(stem=stem, body=body, head=head))

stem.requires_grad_(False)  # its weights stay
stem.eval()  # and so do its statistics: the trainer leaves modules in the mode that you gave them
before = {name: value.clone() for name, value in stem.state_dict().items()}

trainer = tl.Trainer(
    model,
    nn.CrossEntropyLoss(),
    tl.optim.adamw(lr=1e-4, groups=tl.optim.rates({"head": 10.0})),
    metrics={"accuracy": lambda logits, labels: (logits.argmax(1) == labels).float().mean()},
)
train, val = tl.split((images, labels), (0.75, 0.25), stratify=labels)
result = trainer.fit(train, val, epochs=10, batch_size=16)
untouched = all(torch.equal(value, before[name]) for name, value in stem.state_dict().items())
print(f"the stem is as it was: {untouched}; still in eval mode: {not any(m.training for m in stem.modules())}")
