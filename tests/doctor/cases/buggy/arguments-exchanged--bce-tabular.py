# expect: arguments-exchanged [run]
# about: criterion(labels, predictions) with BCELoss
# exits: 1
# allow: non-finite-value
# allow: not-learning
# allow: learning-rate-too-high
# allow: exploding-gradients
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
sc = StandardScaler().fit(X[:450])
X = torch.FloatTensor(sc.transform(X))
y = torch.FloatTensor(y).reshape(-1, 1)
train = DataLoader(TensorDataset(X[:450], y[:450]), batch_size=32, shuffle=True)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())

    def forward(self, x):
        return self.net(x)


model = Classifier()
criterion = nn.BCELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(6):
    epoch_loss = 0
    for inputs, labels in train:
        predictions = model(inputs)
        loss = criterion(labels, predictions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item() * inputs.size(0)
    print(f"Epoch {epoch}: {epoch_loss / 450:.4f}")
