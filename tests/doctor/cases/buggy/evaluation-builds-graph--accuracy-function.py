# expect: evaluation-builds-graph [run,source]
# about: check_accuracy sets eval mode and back, and records a graph for each batch it scores
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def check_accuracy(loader, model):
    num_correct = num_samples = 0
    model.eval()
    for x, y in loader:
        scores = model(x)
        _, predictions = scores.max(1)
        num_correct += (predictions == y).sum().item()
        num_samples += predictions.size(0)
    model.train()
    return num_correct / num_samples


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
train_loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=64, shuffle=True)
test_loader = DataLoader(TensorDataset(x[1400:], y[1400:]), batch_size=64)


class RNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 32, 2, batch_first=True, dropout=0.1)
        self.fc = nn.Linear(32 * 8, 10)

    def forward(self, x):
        return self.fc(self.gru(x)[0].reshape(len(x), -1))


model = RNN()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(4):
    for data, targets in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data), targets).backward()
        optimizer.step()
    print(f"Accuracy on test set: {check_accuracy(test_loader, model) * 100:.2f}")
