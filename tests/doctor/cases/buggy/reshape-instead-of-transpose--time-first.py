# expect: reshape-instead-of-transpose [run,source]
# about: an RNN wants (T,N,F) and gets it by view from (N,T,F): rows of different samples end in one sequence
# allow: batch-samples-mix
# allow: not-learning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Model(nn.Module):
    def __init__(self, input_size=8, hidden=32, classes=10):
        super().__init__()
        self.rnn = nn.GRU(input_size, hidden)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x):
        n, t, f = x.shape
        x = x.view(t, n, f)
        out, _ = self.rnn(x)
        return self.fc(out[-1])


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
val = DataLoader(TensorDataset(x[1400:1750], y[1400:1750]), batch_size=50)
model = Model()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(5):
    model.train()
    for a, b in train:
        opt.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        right = sum((model(a).argmax(1) == b).sum().item() for a, b in val)
    print(epoch, right / 350)
