"""One run on 1, 2, 3 and 4 processes: the same curve, and two processes give the bits of one that accumulates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

Launch = Callable[..., Any]
Curves = dict[str, dict[str, torch.Tensor]]

SCRIPT = '''
"""Each case is trained; its weights, losses and norms are saved."""
import os, sys
import torch
from torch import nn
from torch.nn import functional
import trueloop as tl

saved, which, accumulate = sys.argv[1], sys.argv[2], int(sys.argv[3])  # of one process: microbatches a batch


def data(samples, features=8, classes=3):
    generator = torch.Generator().manual_seed(samples)
    x = torch.randn(samples, features, generator=generator)
    return x, torch.randint(0, classes, (samples,), generator=generator)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def curve(loss=None, optimizer=None, xy=None, *, batch_size=20, epochs=3, shuffle=True, **options):
    trainer = tl.Trainer(mlp(), loss or nn.CrossEntropyLoss(), optimizer or tl.optim.sgd(lr=0.1, momentum=0.9),
                         doctor=False, **options)
    steps, means, norms = [], [], []

    def note(event):
        if isinstance(event, tl.StepEnded):
            steps.append(event.loss.double())
            norms.append(torch.zeros(()) if event.grad_norm is None else event.grad_norm.double())
            counts.append(event.samples)
        if isinstance(event, tl.EpochEnded):
            means.append(event.loss)

    counts = []
    trainer.fit(xy or data(101), epochs=epochs, batch_size=batch_size, seed=1, shuffle=shuffle, progress=False,
                observers=[note])
    found = {"weights": torch.cat([p.detach().flatten() for p in trainer.model.parameters()]),
             "losses": torch.stack(steps), "norms": torch.stack(norms), "means": torch.tensor(means),
             "samples": torch.tensor(counts)}
    if trainer.averaged is not None:
        found["averaged"] = torch.cat([p.detach().flatten() for p in trainer.averaged.parameters()])
    return found


def bits():
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        for name, optimizer in (("sgd", tl.optim.sgd(lr=0.1, momentum=0.9)), ("adamw", tl.optim.adamw(lr=1e-2))):
            yield f"{name} {dtype}", curve(optimizer=optimizer, xy=data(320), batch_size=32 // accumulate, epochs=4,
                                           accumulate=accumulate)


def masked(model, batch):
    losses = functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
    return (losses * batch["mask"]).sum() / batch["mask"].sum().clamp(min=1), batch["mask"].sum()


def tokens(samples=101):
    x, y = data(samples)
    return {"x": x, "y": y, "mask": (torch.arange(samples) % 7 > 2).to(x.dtype)}


def ignored():
    x, y = data(101)
    y[:100:5], y[40:58] = -100, -100  # whole parts of a batch are ignored
    return x, y


def same():
    weights = torch.tensor([1.0, 2.0, 0.5])
    yield "plain", curve()
    yield "one sample last", curve(batch_size=10)
    yield "less than a process each", curve(xy=data(7), batch_size=3)
    yield "one sample a batch", curve(xy=data(5), batch_size=1)
    yield "accumulated", curve(accumulate=3)
    yield "accumulated, one sample last", curve(batch_size=10, accumulate=2)
    yield "clipped", curve(clip_norm=0.1, clip_value=0.05, accumulate=2)
    yield "tokens", curve(masked, xy=tokens())
    yield "tokens, accumulated", curve(masked, xy=tokens(), accumulate=2)
    yield "tokens, one sample last", curve(masked, xy=tokens(), batch_size=10)
    yield "tokens in a dict", curve(lambda model, batch: dict(zip(("loss", "count"), masked(model, batch))),
                                    xy=tokens(), accumulate=2)
    yield "ignored and weighted", curve(nn.CrossEntropyLoss(weights), xy=ignored(), shuffle=False)
    yield "ignored, accumulated", curve(nn.CrossEntropyLoss(weights), xy=ignored(), shuffle=False, accumulate=3)
    yield "ignored, one sample last", curve(nn.CrossEntropyLoss(), xy=ignored(), shuffle=False, batch_size=20)
    yield "sum", curve(nn.CrossEntropyLoss(reduction="sum"), tl.optim.sgd(lr=1e-3), accumulate=2)
    yield "callable", curve(lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]), batch_size=10)
    yield "average", curve(average=tl.optim.ema(0.9))
    yield "penalty", curve(penalty=tl.objective.l2(0.1), accumulate=2)
    yield "lbfgs", curve(optimizer=lambda model: torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5), epochs=2)
    yield "scheduled", curve(schedule=tl.schedules.warmup_cosine(warmup_steps=4))


def same_in_double():
    torch.set_default_dtype(torch.float64)
    yield from same()


def same_in_single():
    yield from same()


found = dict(globals()[which]())
if int(os.environ.get("RANK", 0)) == 0:
    torch.save(found, saved)
'''


@pytest.fixture(scope="module")
def curves(launch: Launch) -> Callable[[str, int, int], Curves]:
    """The curves of all cases, on so many processes, each of which accumulates so many microbatches."""

    @cache
    def found(which: str, processes: int, accumulate: int = 1) -> Curves:
        curves: Curves = launch(SCRIPT, processes, which, str(accumulate))
        return curves

    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_processes_give_the_bits_of_one_that_accumulates(
    curves: Callable[..., Curves], optimizer: str, dtype: torch.dtype
) -> None:
    one, two = curves("bits", 1, 2)[f"{optimizer} {dtype}"], curves("bits", 2)[f"{optimizer} {dtype}"]
    assert len(one["losses"]) == 40
    assert torch.equal(one["weights"], two["weights"])
    assert torch.equal(one["losses"], two["losses"])


CASES = [
    "plain",
    "one sample last",
    "less than a process each",
    "one sample a batch",
    "accumulated",
    "accumulated, one sample last",
    "clipped",
    "tokens",
    "tokens, accumulated",
    "tokens, one sample last",
    "tokens in a dict",
    "ignored and weighted",
    "ignored, accumulated",
    "ignored, one sample last",
    "sum",
    "callable",
    "average",
    "penalty",
    "lbfgs",
    "scheduled",
]


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("case", CASES)
def test_the_curve_is_that_of_one_process(curves: Callable[..., Curves], case: str, processes: int) -> None:
    one, several = curves("same_in_double", 1)[case], curves("same_in_double", processes)[case]
    assert one["losses"].isfinite().all()
    for name, values in one.items():
        torch.testing.assert_close(several[name], values, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_in_single_precision_the_curve_is_the_same_to_rounding(curves: Callable[..., Curves], case: str) -> None:
    one, several = curves("same_in_single", 1)[case], curves("same_in_single", 3)[case]
    rounding = 1e-3 if case == "lbfgs" else 1e-5  # it divides by differences of gradients that are nearly alike
    torch.testing.assert_close(several["weights"], one["weights"], rtol=rounding, atol=rounding)
