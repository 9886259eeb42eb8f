"""What differs between processes is said before the first step, by its name; what is alike is not in the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from trueloop.optim import adamw, ema
from trueloop.parallel.likeness import content, flat, likeness
from trueloop.schedules import warmup_cosine

Launch = Callable[..., Any]

SCRIPT = """
import os, sys
from functools import partial
import torch
from torch import nn
import trueloop as tl

rank = int(os.environ["RANK"])


class Loss:
    def __call__(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def said(what, parallel):
    def pick(name, value, other):
        return other if what == name and rank == 1 else value

    torch.manual_seed(pick("data", 0, 1))
    x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
    x[3, 2] += pick("sample", 0, 1)
    activation, dropout = pick("activation", nn.Tanh(), nn.ReLU()), nn.Dropout(pick("dropout", 0.1, 0.2))
    model = nn.Sequential(nn.Linear(4, 8), activation, dropout, nn.Linear(8, 3))
    loss = {"partial": partial(nn.functional.cross_entropy, label_smoothing=0.1), "object": Loss()}.get(
        what, nn.CrossEntropyLoss(label_smoothing=pick("smoothing", 0.0, 0.1)))
    metrics = {"mean": lambda outputs, targets: outputs.mean()} if pick("metrics", True, False) else {}
    trainer = tl.Trainer(model, loss, tl.optim.adamw(lr=pick("lr", 1e-3, 2e-3)), parallel=parallel, metrics=metrics,
                         penalty=tl.objective.l2(pick("l2", 0.1, 0.2)),
                         schedule=tl.schedules.warmup_cosine(warmup_steps=pick("schedule", 2, 3)))
    try:
        held_out = pick("val", 10, 9)
        if what == "evaluated":
            trainer.evaluate((x[pick("evaluated", 0, 9):], y[pick("evaluated", 0, 9):]))
        if what == "predicted":
            trainer.predict(x * pick("predicted", 1, 2))
        out = pick("out", sys.argv[1] + what + parallel, None) if what in ("out", "saving") else None
        saving = tl.Saving(every_steps=pick("saving", 3, 4)) if out else None
        trainer.fit((x, y), (x[:held_out], y[:held_out]), epochs=1, batch_size=16, seed=1, progress=False, out=out,
                    saving=saving)
    except tl.errors.TrueloopError as error:  # of the first to see it, or a PeerError that quotes it
        return str(error)
    return ""


cases = "none partial object data sample activation dropout smoothing lr l2 schedule val"
cases = (cases + " out saving metrics evaluated predicted").split()
found = {(case, parallel): said(case, parallel) for parallel in ("ddp", "fsdp") for case in cases}
if rank == 0:
    torch.save(found, sys.argv[1])
"""


def test_what_differs_is_named_before_the_first_step(launch: Launch) -> None:
    found = launch(SCRIPT)
    expected = {
        "data": "the data's array 0",
        "sample": "the data's array 0",
        "activation": "model 1 is Tanh() on process 0; ReLU() on process 1",
        "dropout": "model 2 is Dropout(p=0.1",
        "smoothing": "loss label_smoothing is 0.0 on process 0; 0.1 on process 1",
        "lr": "optimizer 0 lr is 0.001 on process 0; 0.002 on process 1",
        "l2": "penalty",
        "schedule": "schedule",
        "val": "the validation data's",
        "out": "out is a folder on process 0; None on process 1",
        "saving": "saving every_steps is 3 on process 0; 4 on process 1",
        "metrics": "metrics is ['mean'] on process 0; [] on process 1",
        "evaluated": "the data's number of samples is 64 on process 0; 55 on process 1",
        "predicted": "the data's array 0 checksum is",
    }
    for (case, parallel), said in found.items():
        assert expected[case] in said if case in expected else not said, f"{case}, {parallel}: {said or 'nothing'}"


def test_where_a_setting_lies_in_memory_is_no_part_of_it() -> None:
    class Loss:
        pass

    def given() -> list[Any]:
        smooth = partial(nn.functional.cross_entropy, label_smoothing=0.1)
        return [smooth, Loss(), adamw(lr=1e-3), ema(0.9), warmup_cosine(warmup_steps=3), nn.Dropout(0.2)]

    assert likeness(given()) == likeness(given())
    assert "0x" not in repr(likeness(given()))


def test_other_settings_are_others() -> None:
    def smoothed(by: float) -> Any:
        return partial(nn.functional.cross_entropy, label_smoothing=by)

    assert likeness(smoothed(0.1)) != likeness(smoothed(0.2))
    assert likeness(warmup_cosine(warmup_steps=3)) != likeness(warmup_cosine(warmup_steps=4))
    assert likeness(nn.CrossEntropyLoss(label_smoothing=0.1)) != likeness(nn.CrossEntropyLoss())
    assert likeness(lambda model: model) != likeness(lambda model: model * 2)


def test_one_changed_sample_makes_other_data() -> None:
    samples = torch.arange(12.0).reshape(4, 3)
    changed = samples.clone()
    changed[2, 1] = -1
    assert content(TensorDataset(samples)) == content((samples.clone(),))
    assert content(TensorDataset(samples)) != content(TensorDataset(changed))
    assert content({"x": samples.numpy()}) != content({"x": changed.numpy()})


def test_each_value_has_the_way_that_leads_to_it() -> None:
    assert flat({"a": [{"lr": 1}, {"lr": 2}], "b": [1, 2]}, "") == {"a 0 lr": 1, "a 1 lr": 2, "b": [1, 2]}
