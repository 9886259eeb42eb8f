# expect: scheduler-wrong-cadence [run,source]
# about: CosineAnnealingLR(T_max=epochs) is stepped every batch: the rate swings up and down some thirty times
import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--epochs", type=int, default=6)
    p.add_argument("--lr", type=float, default=0.1)
    return p.parse_args([])


def main(args):
    torch.manual_seed(0)
    d = load_digits()
    x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
    train_loader = DataLoader(TensorDataset(x[:1440], y[:1440]), batch_size=45, shuffle=True)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)
    for epoch in range(args.epochs):
        net.train()
        rates = []
        for inputs, targets in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs), targets).backward()
            optimizer.step()
            scheduler.step()
            rates.append(scheduler.get_last_lr()[0])
        net.eval()
        with torch.no_grad():
            acc = (net(x[1440:]).argmax(1) == y[1440:]).float().mean().item()
        print(f"epoch {epoch} rate from {min(rates):.4f} to {max(rates):.4f} acc {acc:.3f}")


main(parse())
