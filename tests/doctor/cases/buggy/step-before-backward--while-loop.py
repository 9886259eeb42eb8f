# expect: step-before-backward [run,source]
# about: zero, forward, step, backward: each step sees cleared gradients and the weights stay where they are
# allow: weights-do-not-move
# allow: not-learning
# allow: gradients-zeroed-before-step
# allow: missing-optimizer-step
import torch
from sklearn.datasets import load_diabetes
from torch import nn

torch.manual_seed(0)
raw = load_diabetes(scaled=False)
X, y = torch.tensor(raw.data, dtype=torch.float32), torch.tensor(raw.target, dtype=torch.float32)
perm = torch.randperm(len(X))
X, y = X[perm], y[perm]
X = (X - X[:350].mean(0)) / X[:350].std(0)
y = (y - y[:350].mean()) / y[:350].std()
model = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 1))
optim = torch.optim.RMSprop(model.parameters(), lr=1e-3)
step = 0
while step < 150:
    rows = torch.randint(0, 350, (32,))
    optim.zero_grad()
    prediction = model(X[rows]).squeeze(1)
    loss = nn.functional.smooth_l1_loss(prediction, y[rows])
    optim.step()
    loss.backward()
    step += 1
    if step % 30 == 0:
        with torch.no_grad():
            val = nn.functional.smooth_l1_loss(model(X[350:]).squeeze(1), y[350:]).item()
        print(step, "val", round(val, 4))
