# expect: leak-between-splits [run]
# about: the training half comes from one random split, the validation half from a second one: most validation samples are trained on
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def get_loader(split, batch_size=60):
    d = load_digits()
    data = TensorDataset(torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target))
    train, val = random_split(data, [1400, 397])
    return DataLoader(train if split == "train" else val, batch_size=batch_size, shuffle=split == "train")


torch.manual_seed(0)
train_loader, val_loader = get_loader("train"), get_loader("val")
model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(108, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
for epoch in range(5):
    model.train()
    for x, y in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    right = seen = 0
    with torch.no_grad():
        for x, y in val_loader:
            right += (model(x).argmax(1) == y).sum().item()
            seen += len(y)
    print(f"epoch {epoch} val acc {right / seen:.4f}")
