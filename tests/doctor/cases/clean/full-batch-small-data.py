# expect: nothing
# about: full-batch gradient descent: every step sees the very same tensor because that is all the data there is
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split


class Model(torch.nn.Module):
    def __init__(self, in_features=13, h1=8, h2=9, out_features=3):
        super().__init__()
        self.fc1 = torch.nn.Linear(in_features, h1)
        self.fc2 = torch.nn.Linear(h1, h2)
        self.out = torch.nn.Linear(h2, out_features)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.out(x)


torch.manual_seed(41)
X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=41, stratify=y)
mean, std = X_train.mean(0), X_train.std(0)
X_train = torch.FloatTensor((X_train - mean) / std)
X_test = torch.FloatTensor((X_test - mean) / std)
y_train, y_test = torch.LongTensor(y_train), torch.LongTensor(y_test)

model = Model()
criterion = torch.nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
epochs = 100
losses = []
for i in range(epochs):
    y_pred = model.forward(X_train)
    loss = criterion(y_pred, y_train)
    losses.append(loss.detach().numpy())
    if i % 20 == 0:
        print(f"Epoch: {i} and loss: {loss}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with torch.no_grad():
    y_eval = model.forward(X_test)
    print("test loss", criterion(y_eval, y_test).item(), "correct", (y_eval.argmax(1) == y_test).sum().item(), "of", len(y_test))
