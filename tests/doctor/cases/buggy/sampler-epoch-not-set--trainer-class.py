# expect: sampler-epoch-not-set [run,source]
# about: a trainer for several processes gets a DistributedSampler and never tells it the epoch
# allow: same-order-every-epoch
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class Trainer:
    def __init__(self, model, train_data, optimizer, rank=0, world=2):
        self.model, self.optimizer, self.rank = model, optimizer, rank
        self.loader = DataLoader(train_data, batch_size=32, shuffle=False, sampler=DistributedSampler(train_data, world, rank))

    def _run_batch(self, source, targets):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(source), targets)
        loss.backward()
        self.optimizer.step()

    def _run_epoch(self, epoch):
        self.model.train()
        for source, targets in self.loader:
            self._run_batch(source, targets)

    def train(self, max_epochs, held_x, held_y):
        for epoch in range(max_epochs):
            self._run_epoch(epoch)
            self.model.eval()
            with torch.no_grad():
                acc = (self.model(held_x).argmax(1) == held_y).float().mean().item()
            print(f"[rank {self.rank}] epoch {epoch} acc {acc:.3f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    d = load_digits()
    x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    Trainer(model, TensorDataset(x[:1400], y[:1400]), optimizer).train(5, x[1400:], y[1400:])
