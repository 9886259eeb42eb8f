# expect: learning-rate-too-low [run]
# about: Adam at 1e-8: two hundred steps and the loss has not moved within its noise
# allow: not-learning
# allow: underfitting
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=35, shuffle=True)


class GRUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 24, batch_first=True)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        return self.head(self.gru(x)[0].mean(1))


model = GRUNet()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-8)
for epoch in range(6):
    for images, labels in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(epoch, nn.functional.cross_entropy(model(x[1400:]), y[1400:]).item())
