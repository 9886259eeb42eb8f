# expect: nothing
# about: a table with few distinct values (class, sex, port, siblings) standardised on train: the same rows occur on both sides by nature
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.RandomState(7)
n = 900
pclass = rng.choice([1, 2, 3], n, p=[0.25, 0.2, 0.55])
sex = rng.randint(0, 2, n)
sibsp = rng.choice([0, 1, 2, 3], n, p=[0.65, 0.25, 0.06, 0.04])
port = rng.choice([0, 1, 2], n, p=[0.7, 0.2, 0.1])
age_group = rng.randint(0, 5, n)
logit = 1.2 - 0.9 * pclass + 2.2 * sex - 0.3 * sibsp + 0.2 * (age_group == 0)
survived = (rng.logistic(size=n) + logit > 0).astype(np.int64)
table = np.stack([pclass, sex, sibsp, port, age_group], 1).astype(np.float32)
order = rng.permutation(n)
tr, va = order[:700], order[700:]
mean, std = table[tr].mean(0), table[tr].std(0)
table = (table - mean) / std
train_loader = DataLoader(TensorDataset(torch.tensor(table[tr]), torch.tensor(survived[tr])), batch_size=32, shuffle=True)
val_loader = DataLoader(TensorDataset(torch.tensor(table[va]), torch.tensor(survived[va])), batch_size=200)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss()
for epoch in range(5):
    net.train()
    for xb, yb in train_loader:
        optimizer.zero_grad()
        loss = criterion(net(xb), yb)
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        for xb, yb in val_loader:
            out = net(xb)
            print(f"{epoch}: {criterion(out, yb).item():.3f} {(out.argmax(1) == yb).float().mean():.3f}")
