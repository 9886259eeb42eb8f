# expect: missing-zero-grad [run,source]
# about: zero_grad stands before the batch loop: gradients of all batches of an epoch pile up while a step is taken each batch
# allow: learning-rate-too-high
# allow: exploding-gradients
# allow: not-learning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

torch.manual_seed(0)
pixels = torch.tensor(load_digits().data / 16.0, dtype=torch.float32)
train_loader = DataLoader(pixels[:1400], batch_size=50, shuffle=True)
val_loader = DataLoader(pixels[1400:], batch_size=100)


class AutoEncoder(nn.Module):
    def __init__(self, code=10):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, code))
        self.decoder = nn.Sequential(nn.Linear(code, 40), nn.ReLU(), nn.Linear(40, 64))

    def forward(self, x):
        return self.decoder(self.encoder(x))


net = AutoEncoder()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.8)
for epoch in range(5):
    net.train()
    optimizer.zero_grad()
    for img in train_loader:
        loss = nn.functional.mse_loss(net(img), img)
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        err = sum(nn.functional.mse_loss(net(img), img, reduction="sum").item() for img in val_loader) / pixels[1400:].numel()
    print(f"epoch {epoch} val mse {err:.4f} (variance {pixels.var().item():.4f})")
