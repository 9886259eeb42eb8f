# expect: evaluation-on-training-data [run,source]
# about: after the split, "test accuracy" is computed from the training tensors; the test tensors are never used
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

torch.manual_seed(0)
features, labels = load_breast_cancer(return_X_y=True)
train_features, test_features, train_labels, test_labels = train_test_split(features, labels, test_size=0.3, random_state=1)
scaler = StandardScaler()
train_features = torch.tensor(scaler.fit_transform(train_features), dtype=torch.float32)
test_features = torch.tensor(scaler.transform(test_features), dtype=torch.float32)
train_labels, test_labels = torch.tensor(train_labels).float(), torch.tensor(test_labels).float()


class Titanic(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1 = nn.Linear(30, 12)
        self.linear2 = nn.Linear(12, 1)

    def forward(self, x):
        return self.linear2(torch.tanh(self.linear1(x))).squeeze(1)


net = Titanic()
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
for epoch in range(12):
    net.train()
    for rows in torch.randperm(len(train_features)).split(50):
        optimizer.zero_grad()
        criterion(net(train_features[rows]), train_labels[rows]).backward()
        optimizer.step()
net.eval()
with torch.no_grad():
    test_loss = criterion(net(train_features), train_labels)
    test_acc = ((net(train_features) > 0).float() == train_labels).float().mean()
print(f"Test loss {test_loss.item():.4f} test accuracy {test_acc.item():.4f}")
