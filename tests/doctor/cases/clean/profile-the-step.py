# expect: nothing
# about: a speed measurement: the same random batch again and again, random labels, no data, no validation; only time matters
# allow: no-validation
import time

import torch
from torch import nn


def benchmark(model, batch, steps=40, warmup=5):
    """Seconds a training step takes, on one random batch."""
    x, y = batch
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    times = []
    for i in range(warmup + steps):
        start = time.perf_counter()
        opt.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
        if i >= warmup:
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


if __name__ == "__main__":
    torch.manual_seed(0)
    batch = torch.randn(64, 3, 16, 16), torch.randint(0, 10, (64,))
    for width in (8, 16):
        model = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, 10))
        print(f"width {width}: {benchmark(model, batch) * 1e3:.2f} ms a step")
