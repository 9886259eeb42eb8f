"""The settings of DDP: parameters left out, frozen or thawed; compression; BatchNorm; and what the plan says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import trueloop as tl
from trueloop.errors import ArgumentError
from trueloop.parallel.replicate import synchronise_batchnorm

Launch = Callable[..., Any]

BRANCHES = """
import os, sys
import torch
from torch import nn
import trueloop as tl

saved, case = sys.argv[1:]
alone = "WORLD_SIZE" not in os.environ
torch.manual_seed(0)
x = torch.randn(96, 8, dtype=torch.float64)
y = x[:, :3].argmax(1)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.left, self.right = nn.Linear(8, 16), nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x):
        hidden = self.body(x).relu()
        return self.left(hidden) if case in ("never", "static") or x.mean() > 0 else self.right(hidden)


how = {"found": tl.DDP(find_unused=True), "static": tl.DDP(static_graph=True)}.get(case, tl.DDP())
model = Branches().double()
penalty = tl.objective.l2(0.1) if case == "found" else None
trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1), parallel=how, doctor=False,
                     penalty=penalty, accumulate=2 if alone else 1)
told = ""
try:
    trainer.fit((x, y), epochs=2, batch_size=8 if alone else 16, seed=1, progress=False)
except tl.errors.TrueloopError as error:
    told = str(error)
found = {"told": told, "weights": torch.cat([p.detach().flatten() for p in model.parameters()]), "steps": trainer.step}
if alone or os.environ["RANK"] == "0":
    torch.save(found, saved)
"""

THAWED = """
import os, sys
import torch
from torch import nn
import trueloop as tl

saved, compress = sys.argv[1], sys.argv[2] == "compress"
alone = "WORLD_SIZE" not in os.environ
torch.manual_seed(0)
x = torch.randn(96, 8, dtype=torch.float64)
y = x[:, :3].argmax(1)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).double()
model[0].requires_grad_(False)
optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9)
trainer = tl.Trainer(model, nn.CrossEntropyLoss(), optimizer, accumulate=2 if alone else 1, doctor=False,
                     parallel=tl.DDP(compress=compress))


def thaw(event):
    if isinstance(event, tl.StepEnded) and event.step == 5:
        model[0].requires_grad_(True)
        optimizer.add_param_group({"params": list(model[0].parameters())})


how = {"epochs": 2, "batch_size": 8 if alone else 16, "seed": 1, "progress": False}
trainer.fit((x, y), **how, observers=[thaw])
model[2].requires_grad_(False)  # and another run, with other weights frozen
trainer.fit((x, y), **how)
if alone or os.environ["RANK"] == "0":
    torch.save(torch.cat([p.detach().flatten() for p in model.parameters()]), saved)
"""


@pytest.mark.parametrize("case", ["never", "now and then"])
def test_parameters_that_the_loss_leaves_out_are_named_before_the_step(launch: Launch, case: str) -> None:
    found = launch(BRANCHES, 2, case)
    assert "2 of 6 parameters" in found["told"]
    assert "right.weight, right.bias" in found["told"] or "left.weight, left.bias" in found["told"]
    assert "parallel=trueloop.DDP(find_unused=True)" in found["told"]
    if case == "never":
        assert found["steps"] == 0


@pytest.mark.parametrize("case", ["found", "static"])
def test_parameters_may_be_left_out_where_it_is_said(launch: Launch, case: str) -> None:
    alone, found = launch(BRANCHES, 1, case), launch(BRANCHES, 2, case)
    assert found["told"] == ""
    assert found["steps"] == 12
    assert torch.equal(alone["weights"], found["weights"])


def test_weights_may_be_thawed_and_frozen_on_the_way(launch: Launch) -> None:
    alone, together = launch(THAWED, 1, ""), launch(THAWED, 2, "")
    assert torch.equal(alone, together)


def test_compression_rounds(launch: Launch) -> None:
    alone, together = launch(THAWED, 1, ""), launch(THAWED, 2, "compress")
    assert 1e-6 < float((alone - together).abs().max()) < 0.02


def test_batchnorm_over_processes_needs_gpus() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ArgumentError, match="needs a GPU for each process"):
        synchronise_batchnorm(model, torch.device("cpu"))


def test_a_bucket_has_a_size() -> None:
    with pytest.raises(ArgumentError, match="bucket_mb must be a positive number, got bucket_mb=0"):
        tl.DDP(bucket_mb=0)


PLANNED = """
import os, sys
import torch
from torch import nn
import trueloop as tl

saved, how = sys.argv[1:]
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))
x = torch.randn(97, 8, generator=torch.Generator().manual_seed(0))
trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1), parallel=eval(how))
plan = trainer.plan((x, x[:, :3].argmax(1)), epochs=2, batch_size=9)
if os.environ.get("RANK", "0") == "0":
    torch.save(plan.processes, saved)
"""


def test_the_plan_says_how_processes_share_the_run(launch: Launch) -> None:
    how, sent, batchnorm, parts = launch(PLANNED, 2, "'auto'")
    assert how.startswith("2, 1 thread each; DDP (auto: torchrun has started several;")
    assert sent == "gradients are summed once a step: 0.000908 MB"
    assert batchnorm == "BatchNorm: each normalises by its own samples, and rank 0's running statistics are kept"
    assert parts == "of a batch's 9 samples each computes 4 or 5"


@pytest.mark.slow
def test_the_plan_says_what_was_asked_for(launch: Launch) -> None:
    assert "rounded to bf16" in launch(PLANNED, 2, "tl.DDP(compress=True)")[1]
    assert launch(PLANNED, 2, "'fsdp'")[0].startswith("2, 1 thread each; FSDP (asked for): each holds and saves a part")
    assert launch(PLANNED, 2, "None") == ()
    assert launch(PLANNED, 1, "'ddp'")[0].startswith("1, though ddp was asked for")


def test_the_plan_of_one_process_says_nothing(launch: Launch) -> None:
    assert launch(PLANNED, 1, "'auto'") == ()
