# expect: nothing
# about: ordinal quality (3 … 8, whole numbers) by MSE, and the share of exact rounds as "accuracy" beside it
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X = torch.randn(1000, 11)
latent = X @ torch.randn(11) * 0.5 + 5.6
quality = latent.round().clamp(3, 8)
train_loader = DataLoader(TensorDataset(X[:800], quality[:800].unsqueeze(1)), batch_size=40, shuffle=True)
test_x, test_q = X[800:], quality[800:].unsqueeze(1)


class QualityNet(nn.Module):
    """Predicts the quality score of a wine."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(11, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        return self.layers(x)


model = QualityNet()
loss_fn = nn.MSELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(6):
    for xb, qb in train_loader:
        optimizer.zero_grad()
        loss = loss_fn(model(xb), qb)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        pred = model(test_x)
        mae = (pred - test_q).abs().mean().item()
        within_one = ((pred - test_q).abs() <= 1).float().mean().item()
    print(f"epoch {epoch}: test MAE {mae:.3f}, accuracy within one point {within_one:.3f}")
