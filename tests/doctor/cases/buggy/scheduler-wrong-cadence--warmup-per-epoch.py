# expect: scheduler-wrong-cadence [run,source]
# about: a linear schedule with warm-up, given the number of steps, is stepped once an epoch: training ends within the warm-up
# allow: learning-rate-too-low
# allow: not-learning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import LinearLR, PolynomialLR, SequentialLR

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
epochs, batch = 6, 50
steps_per_epoch = 1400 // batch
total_steps, warmup_steps = epochs * steps_per_epoch, steps_per_epoch
scheduler = SequentialLR(
    optimizer,
    [LinearLR(optimizer, 0.01, total_iters=warmup_steps), PolynomialLR(optimizer, total_iters=total_steps - warmup_steps)],
    milestones=[warmup_steps],
)
for epoch in range(epochs):
    model.train()
    for idx in torch.randperm(1400).split(batch):
        loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    scheduler.step()
    model.eval()
    with torch.no_grad():
        print(epoch, f"rate {scheduler.get_last_lr()[0]:.2e}", (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
