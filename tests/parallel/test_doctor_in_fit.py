"""The doctor in ``fit`` on several processes: it hears what is this process's, and never asks another one."""

from __future__ import annotations

from typing import Any

import pytest
from tests.parallel.conftest import Launch
from tests.parallel.test_shard import COMMON

SCRIPT = (
    COMMON
    + """
RIGHT = {
    "adamw": {},
    "sgd": {"optimizer": tl.optim.sgd(lr=0.1, momentum=0.9)},
    "accumulated": {"accumulate": 2, "clip_norm": 0.5},
    "averaged": {"average": tl.optim.ema(0.9)},
    "rounded": {"precision": "bf16", "penalty": tl.objective.l2(0.01)},
    "ddp": {"parallel": "ddp"},
    "ddp, accumulated": {"parallel": "ddp", "accumulate": 2},
    "ddp, unused found": {"parallel": tl.DDP(find_unused=True), "optimizer": tl.optim.sgd(lr=0.1)},
    "checkpointed": {"parallel": FSDP(checkpoint_activations=True, mixed_precision="bf16")},
}

def run(doctor, **how):
    x = data(400)[0]
    y = x[:, :3].argmax(1)
    torch.manual_seed(1)
    model, found = Net(), []
    how = {"optimizer": tl.optim.adamw(lr=1e-2), "parallel": "fsdp", **how}
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), doctor=doctor, **how)
    observers = [lambda event: found.append(event.finding.name) if isinstance(event, tl.Found) else None]
    how = {"epochs": 3, "batch_size": 16, "seed": 1, "progress": False}
    trainer.fit((x[:96], y[:96]), (x[96:], y[96:]), observers=observers, **how)
    return weights(model), found

saved = {}
for name in sys.argv[2:]:
    if name in ("fsdp", "replicas"):
        saved[name] = run(True, schedule=lambda step: 0.0, parallel=name.replace("replicas", "ddp"))[1]
    else:  # one process alone is listened to: whatever the doctor asked of the others, they would not answer
        (plain, _), (heard, found) = run(False, **RIGHT[name]), run(FIRST, **RIGHT[name])
        saved[name] = (torch.equal(plain, heard), found)
if FIRST:
    torch.save(saved, sys.argv[1])
"""
)


ALL: tuple[str, ...] = ("adamw", "sgd", "accumulated", "averaged", "rounded", "checkpointed")
ALL += ("ddp", "ddp, accumulated", "ddp, unused found")


@pytest.mark.parametrize(("processes", "names"), [(2, ALL), (4, ALL[:3])])  # of a bias of 3 the last of 4 has nothing
def test_it_changes_no_bit_asks_nobody_and_says_nothing_of_right_training(
    launch: Launch, processes: int, names: tuple[str, ...]
) -> None:
    seen: dict[str, Any] = launch(SCRIPT, processes, *names)
    assert seen == dict.fromkeys(names, (True, []))


def test_it_finds_weights_that_stay(launch: Launch) -> None:
    names = ["weights-do-not-move"]
    assert launch(SCRIPT, 2, "fsdp", "replicas") == {"fsdp": names, "replicas": names}
