# expect: nothing
# about: OneCycle counts optimizer steps, not batches: with accumulation of two it is stepped every second batch, tail included
import math

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset


class Trainer:
    def __init__(self, model, train_dl, val_dl, epochs=5, accumulate=2, max_lr=1e-2):
        self.model, self.train_dl, self.val_dl = model, train_dl, val_dl
        self.epochs, self.accumulate = epochs, accumulate
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=max_lr / 25)
        steps = math.ceil(len(train_dl) / accumulate) * epochs
        self.scheduler = OneCycleLR(self.optimizer, max_lr=max_lr, total_steps=steps)
        self.loss_fn = nn.CrossEntropyLoss()

    def fit(self):
        for epoch in range(self.epochs):
            self.model.train()
            batches = list(enumerate(self.train_dl))
            for i, (x, y) in batches:
                start = i // self.accumulate * self.accumulate
                window = min(self.accumulate, len(batches) - start)
                (self.loss_fn(self.model(x), y) / window).backward()
                if (i + 1) % self.accumulate == 0 or i + 1 == len(batches):
                    self.optimizer.step()
                    self.scheduler.step()
                    self.optimizer.zero_grad()
            print(f"epoch {epoch} val acc {self.validate():.3f} lr {self.scheduler.get_last_lr()[0]:.2e}")

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        hits = sum((self.model(x).argmax(1) == y).sum().item() for x, y in self.val_dl)
        return hits / len(self.val_dl.dataset)


if __name__ == "__main__":
    torch.manual_seed(0)
    X, y = load_digits(return_X_y=True)
    Xt, Xv, yt, yv = train_test_split(X / 16.0, y, test_size=0.2, random_state=0, stratify=y)
    wrap = lambda a, b: TensorDataset(torch.tensor(a, dtype=torch.float32), torch.tensor(b))
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
    Trainer(net, DataLoader(wrap(Xt, yt), 32, shuffle=True), DataLoader(wrap(Xv, yv), 120)).fit()
