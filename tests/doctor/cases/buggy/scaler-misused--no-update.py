# expect: scaler-misused [run,source]
# about: scaler.step without scaler.update(): PyTorch refuses the next unscale_
# allow: no-validation
# exits: 1
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
ds = TensorDataset(torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target))
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
for epoch in range(2):
    for img, label in DataLoader(ds, batch_size=64, shuffle=True):
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = nn.functional.cross_entropy(net(img), label)
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(opt)
    print(epoch, loss.item())
