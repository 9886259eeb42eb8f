# expect: nothing
# about: gradient accumulation over samples: losses are sums, gradients are divided by the number of samples before the step, remainder stepped
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(0)
raw = load_diabetes(scaled=False)
feats, target = torch.tensor(raw.data, dtype=torch.float32), torch.tensor(raw.target, dtype=torch.float32)
tr, va = random_split(range(len(feats)), [350, 92])
tr, va = torch.tensor(list(tr)), torch.tensor(list(va))
feats = (feats - feats[tr].mean(0)) / feats[tr].std(0)
t_mean, t_std = target[tr].mean(), target[tr].std()
target = (target - t_mean) / t_std
micro = DataLoader(TensorDataset(feats[tr], target[tr]), batch_size=8, shuffle=True)

model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)


def step_and_clear(n_samples):
    for p in model.parameters():
        p.grad.div_(n_samples)
    opt.step()
    opt.zero_grad()


for epoch in range(8):
    model.train()
    pending = 0
    for xb, yb in micro:
        nn.functional.mse_loss(model(xb), yb, reduction="sum").backward()
        pending += len(xb)
        if pending >= 32:
            step_and_clear(pending)
            pending = 0
    if pending:
        step_and_clear(pending)
    model.eval()
    with torch.no_grad():
        err = (model(feats[va]) - target[va]).abs().mean() * t_std
    print(f"epoch {epoch} validation mean absolute error {err.item():.2f}")
