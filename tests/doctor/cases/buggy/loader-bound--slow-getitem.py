# expect: loader-bound [run]
# about: each item is "decoded" anew in __getitem__ for some milliseconds in the main process; the loop waits for data nearly all the time
# allow: no-validation
import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class SlowImages(Dataset):
    def __init__(self, n=240):
        d = load_digits()
        self.raw, self.y = d.images[:n], d.target[:n]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        time.sleep(0.006)  # reading and decoding
        return torch.tensor(self.raw[i] / 16.0, dtype=torch.float32).flatten(), int(self.y[i])


torch.manual_seed(0)
loader = DataLoader(SlowImages(), batch_size=16, shuffle=True, num_workers=0)
net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for epoch in range(2):
    waited, start = 0.0, time.perf_counter()
    last = start
    for x, y in loader:
        waited += time.perf_counter() - last
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        last = time.perf_counter()
    print(f"epoch {epoch} loss {loss.item():.3f} share of waiting {waited / (last - start):.2f}")
