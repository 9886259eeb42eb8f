# expect: overfitting [run]
# about: an embedding bag with 2000 words on 80 short texts with noisy labels: validation loss climbs for the second half of training
# allow: last-weights-kept
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
g = torch.Generator().manual_seed(0)


def texts(n):
    ids = torch.randint(0, 2000, (n, 15), generator=g)
    score = (ids < 800).float().mean(1) - 0.4 + 0.12 * torch.randn(n, generator=g)
    return ids, (score > 0).long()


(x, y), (xv, yv) = texts(80), texts(300)
loader, val_loader = DataLoader(TensorDataset(x, y), 10, shuffle=True), DataLoader(TensorDataset(xv, yv), 100)


class Bag(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.emb = nn.EmbeddingBag(2000, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, ids):
        return self.mlp(self.emb(ids))


model = Bag()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(30):
    model.train()
    train_loss = 0.0
    for a, b in loader:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(a), b)
        loss.backward()
        opt.step()
        train_loss += loss.item() * len(b) / 80
    model.eval()
    with torch.no_grad():
        val_loss = sum(nn.functional.cross_entropy(model(a), b, reduction="sum").item() for a, b in val_loader) / 300
    if epoch % 5 == 4:
        print(epoch, "train", round(train_loss, 4), "val", round(val_loss, 4))
