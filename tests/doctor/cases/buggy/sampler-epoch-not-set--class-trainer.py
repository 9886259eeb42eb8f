# expect: sampler-epoch-not-set [run,source]
# about: DistributedSampler in a world of one (gloo), class-based trainer, set_epoch never called
import tempfile

import torch
import torch.distributed as dist
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class Trainer:
    def __init__(self, model, loader, optimizer):
        self.model, self.loader, self.optimizer = DDP(model), loader, optimizer

    def _run_batch(self, source, targets):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(source), targets)
        loss.backward()
        self.optimizer.step()
        return loss

    def _run_epoch(self, epoch):
        for source, targets in self.loader:
            loss = self._run_batch(source, targets)
        print(f"[rank {dist.get_rank()}] epoch {epoch} loss {loss.item():.3f}")

    def train(self, max_epochs):
        for epoch in range(max_epochs):
            self._run_epoch(epoch)


if __name__ == "__main__":
    dist.init_process_group("gloo", init_method=f"file://{tempfile.mkdtemp()}/store", rank=0, world_size=1)
    torch.manual_seed(0)
    X, y = load_digits(return_X_y=True)
    ds = TensorDataset(torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y))
    loader = DataLoader(ds, batch_size=64, sampler=DistributedSampler(ds))
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    Trainer(model, loader, torch.optim.Adam(model.parameters(), lr=2e-3)).train(4)
    dist.destroy_process_group()
