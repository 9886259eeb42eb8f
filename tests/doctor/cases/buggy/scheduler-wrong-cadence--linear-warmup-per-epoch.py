# expect: scheduler-wrong-cadence [run]
# about: an HF-like LambdaLR with warmup over num_training_steps, stepped once an epoch
import torch
from torch import nn


def get_linear_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps):
    def lr_lambda(current_step):
        if current_step < num_warmup_steps:
            return float(current_step) / float(max(1, num_warmup_steps))
        return max(0.0, float(num_training_steps - current_step) / float(max(1, num_training_steps - num_warmup_steps)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda)


torch.manual_seed(0)
ids = torch.randint(1, 50, (800, 10))
labels = (ids[:, 0] % 4)
emb = nn.Sequential(nn.Embedding(50, 16), nn.Flatten(), nn.Linear(160, 4))
optimizer = torch.optim.AdamW(emb.parameters(), lr=5e-3)
epochs, bs = 5, 40
total = epochs * (640 // bs)
scheduler = get_linear_schedule_with_warmup(optimizer, int(0.1 * total), total)
for epoch in range(epochs):
    for i in torch.randperm(640).split(bs):
        loss = nn.functional.cross_entropy(emb(ids[i]), labels[i])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    scheduler.step()
    with torch.no_grad():
        acc = (emb(ids[640:]).argmax(1) == labels[640:]).float().mean().item()
    print(epoch, loss.item(), acc, scheduler.get_last_lr())
