"""Test accuracy of the CNN after the same number of epochs on all of Fashion-MNIST; asked for by cases/accuracy.py."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

import trueloop as tl
from benchmarks.workloads import LR, Work, fashion


def by_hand(seed: int, epochs: int) -> dict[str, float]:
    """The loop by hand, fp32."""
    work, model = _work(), _model(seed)
    criterion, optimizer = work.make_loss(), torch.optim.Adam(model.parameters(), lr=LR)
    started = time.perf_counter()
    model.train()
    for _ in range(epochs):
        for x, y in DataLoader(TensorDataset(work.x, work.y), batch_size=work.batch_size, shuffle=True):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
    return _judged(model, time.perf_counter() - started)


def ours_fp32(seed: int, epochs: int) -> dict[str, float]:
    """trueloop, fp32."""
    return _ours(seed, epochs)


def ours_bf16(seed: int, epochs: int) -> dict[str, float]:
    """trueloop, bf16 and channels_last."""
    return _ours(seed, epochs, precision="bf16", memory_format="channels_last")


def _ours(seed: int, epochs: int, **settings: Any) -> dict[str, float]:
    work, model = _work(), _model(seed)
    trainer = tl.Trainer(model, work.make_loss(), tl.optim.adam(lr=LR), **settings)
    started = time.perf_counter()
    trainer.fit((work.x, work.y), epochs=epochs, batch_size=work.batch_size, progress=False)
    return _judged(model, time.perf_counter() - started)


@cache
def _work() -> Work:
    return fashion(60_000, 10_000)


def _model(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return _work().make_model()


def _judged(model: torch.nn.Module, seconds: float) -> dict[str, float]:
    """Judged in fp32, whatever it was trained in."""
    work = _work()
    model.eval()
    batches = zip(torch.split(work.x_val, 500), torch.split(work.y_val, 500), strict=True)
    with torch.no_grad():
        right = sum([int((model(x).argmax(1) == y).sum()) for x, y in batches])
    return {"accuracy": 100 * right / len(work.x_val), "seconds": seconds}
