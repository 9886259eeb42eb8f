# expect: sampler-epoch-not-set [run,source]
# about: a gloo group of one process, DistributedSampler(shuffle=True), no set_epoch: every epoch has one order
# allow: same-order-every-epoch
# allow: no-validation
import socket

import torch
import torch.distributed as dist
from sklearn.datasets import make_moons
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
    torch.manual_seed(0)
    x, y = make_moons(800, noise=0.1, random_state=0)
    train = TensorDataset(torch.tensor(x).float(), torch.tensor(y))
    train_sampler = DistributedSampler(train, shuffle=True, seed=7)
    train_loader = DataLoader(train, batch_size=40, sampler=train_sampler, drop_last=True)
    model = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(5):
        orders = []
        for inputs, labels in train_loader:
            orders.append(labels[:3].tolist())
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
        print(epoch, "loss", round(loss.item(), 4), "first labels", orders[:4])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
