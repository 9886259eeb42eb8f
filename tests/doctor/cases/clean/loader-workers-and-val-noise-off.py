# expect: nothing
# about: one class for both, the noise switched off by a flag for validation; same collate_fn pads both
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset


def collate(batch):
    xs, ys = zip(*batch)
    return pad_sequence(xs, batch_first=True), torch.stack(ys)


class Signals(Dataset):
    def __init__(self, n, seed, augment):
        g = torch.Generator().manual_seed(seed)
        self.augment = augment
        self.label = torch.randint(0, 2, (n,), generator=g)
        self.length = torch.randint(15, 30, (n,), generator=g)
        self.x = [torch.sin(torch.arange(float(l)) * (0.3 + 0.4 * c)).unsqueeze(1) + 0.2 * torch.randn(int(l), 1, generator=g) for l, c in zip(self.length, self.label)]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        x = self.x[i]
        if self.augment:
            x = x * (0.8 + 0.4 * torch.rand(1)) + 0.05 * torch.randn_like(x)
        return x, self.label[i]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 16, batch_first=True)
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        return self.fc(self.gru(x)[0].mean(1))


torch.manual_seed(0)
train, val = DataLoader(Signals(800, 0, True), 32, shuffle=True, collate_fn=collate), DataLoader(Signals(200, 1, False), 50, collate_fn=collate)
net = Net()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(4):
    net.train()
    for x, y in train:
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(epoch, sum((net(x).argmax(1) == y).sum().item() for x, y in val) / 200)
