# expect: no-distributed-sampler [run,source]
# about: a hand-made data-parallel training of two processes: gradients are averaged by all_reduce, but both read the same seeded permutation
# allow: no-validation
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.datasets import load_wine
from torch import nn


def average_gradients(model):
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


def worker(rank, size, port):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    torch.manual_seed(1234)
    X, y = load_wine(return_X_y=True)
    X, y = torch.tensor((X - X.mean(0)) / X.std(0)).float(), torch.tensor(y)
    model = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(4):
        seen = []
        for rows in torch.randperm(len(X)).split(16):
            seen.append(rows[0].item())
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(X[rows]), y[rows])
            loss.backward()
            average_gradients(model)
            opt.step()
        print("rank", rank, "epoch", epoch, "first rows", seen[:4], "loss", round(loss.item(), 5))
    dist.destroy_process_group()


if __name__ == "__main__":
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.start_processes(worker, args=(2, port), nprocs=2, start_method="fork")
