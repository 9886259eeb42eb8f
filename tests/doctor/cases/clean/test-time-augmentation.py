# expect: nothing
# about: test-time augmentation: validation outputs are averaged over random shifts on purpose, so two passes differ a little
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def shift(x):
    dy, dx = torch.randint(-1, 2, (2,)).tolist()
    return torch.roll(x, (dy, dx), (2, 3))


@torch.no_grad()
def predict_tta(model, x, views=5):
    """Test-time augmentation: mean of the probabilities over the image and its shifted views."""
    model.eval()
    probs = model(x).softmax(1)
    for _ in range(views - 1):
        probs = probs + model(shift(x)).softmax(1)
    return probs / views


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
test = DataLoader(TensorDataset(x[1400:], y[1400:]), batch_size=200)
model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 10))
opt = torch.optim.Adam(model.parameters(), lr=4e-3)
for epoch in range(6):
    model.train()
    for a, b in train:
        opt.zero_grad()
        views = torch.cat([shift(part) for part in a.split(10)])
        nn.functional.cross_entropy(model(views), b).backward()
        opt.step()
    plain = tta = 0
    model.eval()
    for a, b in test:
        with torch.no_grad():
            plain += (model(a).argmax(1) == b).sum().item()
        tta += (predict_tta(model, a).argmax(1) == b).sum().item()
    print(epoch, "plain", plain / 397, "augmented", tta / 397)
