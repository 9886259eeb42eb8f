# expect: scheduler-out-of-order [run,source]
# about: a cosine schedule with warm-up is built and never stepped: the rate stays at the warm-up's first value
# allow: learning-rate-too-low
import math

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset


def get_cosine_schedule_with_warmup(optimizer, warmup, total):
    def factor(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    return optim.lr_scheduler.LambdaLR(optimizer, factor)


torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(X / 16.0, y, test_size=0.2, random_state=0)
dl = DataLoader(TensorDataset(torch.tensor(Xt).float(), torch.tensor(yt)), 48, shuffle=True)
Xv, yv = torch.tensor(Xv).float(), torch.tensor(yv)
model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
optimizer = optim.AdamW(model.parameters(), lr=2e-3)
num_epochs = 5
scheduler = get_cosine_schedule_with_warmup(optimizer, warmup=20, total=num_epochs * len(dl))
for epoch in range(num_epochs):
    model.train()
    for x, t in dl:
        loss = nn.functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        print(epoch, optimizer.param_groups[0]["lr"], (model(Xv).argmax(1) == yv).float().mean().item())
