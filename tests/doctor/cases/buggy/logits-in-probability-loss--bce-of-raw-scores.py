# expect: logits-in-probability-loss [run,source]
# about: nn.BCELoss is given raw scores: PyTorch refuses values outside 0..1
# allow: no-validation
# exits: 1
import torch
from sklearn.datasets import make_classification
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Scorer(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 16), nn.Linear(16, 1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x))).squeeze(-1)


torch.manual_seed(0)
X, y = make_classification(800, 12, random_state=0)
dl = DataLoader(TensorDataset(torch.tensor(X).float(), torch.tensor(y).float()), batch_size=32, shuffle=True)
model = Scorer()
criterion = nn.BCELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(3):
    for x, t in dl:
        optimizer.zero_grad()
        loss = criterion(model(x), t)
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
