# expect: missing-optimizer-step [run,source]
# about: scheduler.step() is called each batch, optimizer.step() never
# allow: scheduler-out-of-order
# allow: weights-do-not-move
# allow: not-learning
# allow: loss-is-constant
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset


class LitDigits(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 32, batch_first=True)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.rnn(x)[1].squeeze(0))

    def training_step(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
train_dl = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=56, shuffle=True)
model = LitDigits()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
epochs = 4
scheduler = OneCycleLR(optimizer, max_lr=1e-2, total_steps=epochs * len(train_dl))
for epoch in range(epochs):
    model.train()
    for batch in train_dl:
        loss = model.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        print(epoch, "val acc", (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item())
