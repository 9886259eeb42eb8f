# expect: metric-from-wrong-counts [run]
# about: binary accuracy: predictions (N, 1) == labels (N,) broadcast to (N, N)
import torch
from sklearn.datasets import make_circles
from torch import nn

torch.manual_seed(0)
X, y = make_circles(800, noise=0.08, factor=0.5, random_state=0)
X, y = torch.from_numpy(X).float(), torch.from_numpy(y).float()
X_train, X_test, y_train, y_test = X[:600], X[600:], y[:600], y[600:]


class CircleModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 20)
        self.b = nn.Linear(20, 20)
        self.c = nn.Linear(20, 1)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def accuracy_fn(y_true, y_pred):
    correct = torch.eq(y_true, y_pred).sum().item()
    return correct / len(y_pred) * 100


model = CircleModel()
loss_fn = nn.BCEWithLogitsLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(100):
    model.train()
    logits = model(X_train)
    loss = loss_fn(logits, y_train.unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 20 == 0:
        model.eval()
        with torch.inference_mode():
            test_pred = torch.round(torch.sigmoid(model(X_test)))
            acc = accuracy_fn(y_test, test_pred)
        print(f"Epoch {epoch} | loss {loss:.4f} | test acc {acc:.1f}%")
