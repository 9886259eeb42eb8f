# expect: augmented-evaluation [run,source]
# about: one augmenting dataset is split by random_split: the validation half goes through random erasing and scaling too
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, random_split


class AugmentedDigits(Dataset):
    def __init__(self):
        d = load_digits()
        self.x = torch.tensor(d.data / 16.0, dtype=torch.float32)
        self.y = d.target

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        keep = (torch.rand(64) > 0.25).float()
        gain = 0.7 + 0.6 * torch.rand(1)
        return self.x[i] * keep * gain, int(self.y[i])


torch.manual_seed(0)
train, val = random_split(AugmentedDigits(), [1440, 357])
train_loader, val_loader = DataLoader(train, batch_size=48, shuffle=True), DataLoader(val, batch_size=119)
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)


@torch.no_grad()
def validate():
    model.eval()
    return sum((model(x).argmax(1) == y).sum().item() for x, y in val_loader) / len(val)


for epoch in range(5):
    model.train()
    for x, y in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    print(epoch, "validated twice:", round(validate(), 4), round(validate(), 4))
