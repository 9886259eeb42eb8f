# expect: nothing
# about: activation checkpointing: the forward of each block runs twice in a step, the first time without a graph
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset, random_split


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))

    def forward(self, x):
        return x + self.ff(self.norm(x))


class DeepNet(nn.Module):
    def __init__(self, dim=48, depth=5, use_checkpoint=True):
        super().__init__()
        self.stem = nn.Linear(64, dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.head = nn.Linear(dim, 10)
        self.use_checkpoint = use_checkpoint

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            if self.use_checkpoint and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.head(x)


def main():
    torch.manual_seed(0)
    d = load_digits()
    data = TensorDataset(torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target))
    train, val = random_split(data, [1400, 397])
    loader, val_loader = DataLoader(train, 100, shuffle=True), DataLoader(val, 200)
    net = DeepNet()
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for epoch in range(4):
        net.train()
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
        net.eval()
        hits = 0
        with torch.inference_mode():
            for x, y in val_loader:
                hits += (net(x).argmax(-1) == y).sum().item()
        print(epoch, hits / len(val))


if __name__ == "__main__":
    main()
