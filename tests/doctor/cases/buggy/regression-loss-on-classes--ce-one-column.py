# expect: regression-loss-on-classes [run]
# accept: softmax-over-one-value
# about: a binary classifier with one output and CrossEntropyLoss: the loss is zero for ever
# allow: not-learning
# allow: loss-is-constant
# allow: weights-do-not-move
# allow: input-ignored
# allow: targets-out-of-range
import torch
from sklearn.datasets import make_moons
from torch import nn

torch.manual_seed(0)
X, y = make_moons(600, noise=0.15, random_state=0)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32).unsqueeze(1)
model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(80):
    model.train()
    pred = model(X[:480])
    loss = loss_fn(pred, y[:480])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 10 == 0:
        model.eval()
        with torch.inference_mode():
            acc = ((model(X[480:]) > 0).float() == y[480:]).float().mean()
        print(f"Epoch: {epoch} | Loss: {loss:.5f} | Acc: {acc:.2f}")
