# expect: same-batch-every-step [run,source]
# about: the loop over batches never uses its counter: every step trains on rows 0 to 31
# allow: overfitting
# allow: last-weights-kept
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
x_train, y_train, x_val, y_val = x[:1400], y[:1400], x[1400:], y[1400:]
batch_size = 32
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
start_i = 0
for epoch in range(4):
    for i in range((len(x_train) - 1) // batch_size + 1):
        end_i = start_i + batch_size
        xb, yb = x_train[start_i:end_i], y_train[start_i:end_i]
        loss = nn.functional.cross_entropy(model(xb), yb)
        loss.backward()
        opt.step()
        opt.zero_grad()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(x_val), y_val).item()
    print(epoch, "train", round(loss.item(), 4), "val", round(val, 4))
