# expect: nothing
# about: multi-task toxicity labels with -1 for missing: BCE with reduction none, masked, averaged over the known ones
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
fp = (torch.rand(900, 32) < 0.3).float()
tox = ((fp @ torch.randn(32, 5)) > 0).float()
tox[torch.rand_like(tox) < 0.4] = -1
train = DataLoader(TensorDataset(fp[:720], tox[:720]), batch_size=45, shuffle=True)
model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 5))
criterion = nn.BCEWithLogitsLoss(reduction="none")
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(6):
    model.train()
    for xb, yb in train:
        mask = yb != -1
        loss = (criterion(model(xb), yb) * mask).sum() / mask.sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        known = tox[720:] != -1
        print(epoch, loss.item(), (((model(fp[720:]) > 0).float() == tox[720:])[known]).float().mean().item())
