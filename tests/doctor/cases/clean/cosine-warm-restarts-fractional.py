# expect: nothing
# about: CosineAnnealingWarmRestarts stepped every batch with a fractional epoch, as its documentation does
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts
from torch.utils.data import DataLoader, Subset, TensorDataset

torch.manual_seed(11)
d = load_digits()
ds = TensorDataset(torch.tensor(d.images / 16.0, dtype=torch.float32).unsqueeze(1), torch.tensor(d.target))
perm = torch.randperm(len(ds)).tolist()
dataloader = DataLoader(Subset(ds, perm[:1440]), batch_size=60, shuffle=True)
testloader = DataLoader(Subset(ds, perm[1440:]), batch_size=120)
model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(108, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2, eta_min=1e-3)
iters = len(dataloader)
for epoch in range(6):
    model.train()
    for i, sample in enumerate(dataloader):
        inputs, labels = sample
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        scheduler.step(epoch + i / iters)
    model.eval()
    good = 0
    with torch.no_grad():
        for inputs, labels in testloader:
            good += (model(inputs).argmax(dim=1) == labels).sum().item()
    print(f"epoch {epoch} lr {scheduler.get_last_lr()[0]:.4f} acc {good / len(testloader.dataset):.3f}")
