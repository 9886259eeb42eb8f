# expect: weights-do-not-move [run]
# about: a LambdaLR whose warm-up uses integer division: step // warmup is 0 for the whole run
# accept: loss-is-constant
# allow: not-learning
# allow: learning-rate-too-low
import torch
from sklearn.datasets import make_classification
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = make_classification(1000, 12, n_informative=6, n_classes=3, random_state=0)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
train_dl = DataLoader(TensorDataset(X[:800], y[:800]), batch_size=40, shuffle=True)
model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
warmup_steps = 200
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, s // warmup_steps))
for epoch in range(5):
    for xb, yb in train_dl:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(xb), yb)
        loss.backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        print(epoch, loss.item(), nn.functional.cross_entropy(model(X[800:]), y[800:]).item())
