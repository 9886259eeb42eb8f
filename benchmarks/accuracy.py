"""Test accuracy of the CNN after the same number of epochs on all of Fashion-MNIST; asked for by cases/accuracy.py."""

from __future__ import annotations

import time
from functools import cache, partial

import torch
from torch.optim.lr_scheduler import OneCycleLR

import trueloop as tl
from benchmarks.workloads import Work, fashion

LR = 3e-3


def by_hand(seed: int, epochs: int) -> dict[str, float]:
    """The loop by hand, fp32."""
    work, model = _work(), _model(seed)
    criterion, optimizer = work.make_loss(), torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    schedule = OneCycleLR(optimizer, LR, total_steps=work.steps(epochs))
    started = time.perf_counter()
    model.train()
    for _ in range(epochs):
        for x, y in work.loader():
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            schedule.step()
    return _judged(model, time.perf_counter() - started)


def ours_bf16(seed: int, epochs: int) -> dict[str, float]:
    """trueloop, bf16 and channels_last."""
    work, model = _work(), _model(seed)
    trainer = tl.Trainer(
        model,
        work.make_loss(),
        tl.optim.factory(torch.optim.AdamW, groups=tl.optim.groups.one_group, lr=LR, weight_decay=0.05),
        schedule=partial(OneCycleLR, max_lr=LR, total_steps=work.steps(epochs)),
        precision="bf16",
        memory_format="channels_last",
    )
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
