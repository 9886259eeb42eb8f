# expect: nothing
# about: raw features of very different scale go into a BatchNorm layer first; the model also scales its output to the target's units
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Regressor(nn.Module):
    """Takes and gives raw units: BatchNorm for the inputs, fixed mean and std of the training targets for the output."""

    def __init__(self, n_in, y_mean, y_std):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_in)
        self.net = nn.Sequential(nn.Linear(n_in, 24), nn.ReLU(), nn.Linear(24, 1))
        self.register_buffer("y_mean", y_mean)
        self.register_buffer("y_std", y_std)

    def forward(self, x):
        return self.net(self.norm(x)).squeeze(1) * self.y_std + self.y_mean


torch.manual_seed(0)
raw = load_diabetes(scaled=False)
data = TensorDataset(torch.tensor(raw.data, dtype=torch.float32), torch.tensor(raw.target, dtype=torch.float32))
train, val = random_split(data, [352, 90])
y_train = data.tensors[1][train.indices]
model = Regressor(10, y_train.mean(), y_train.std())
opt = torch.optim.Adam(model.parameters(), lr=4e-3)
train_dl, val_dl = DataLoader(train, 44, shuffle=True), DataLoader(val, 90)
for epoch in range(12):
    model.train()
    for x, y in train_dl:
        opt.zero_grad()
        loss = nn.functional.l1_loss(model(x), y) / model.y_std
        loss.backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        for x, y in val_dl:
            print(f"epoch {epoch} mean absolute error {nn.functional.l1_loss(model(x), y).item():.2f} of {(y - y_train.median()).abs().mean().item():.2f}")
