"""Checkpoints that several processes write, each its part of a model that is cut up, while training goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.parallel.conftest import SECONDS, Launch
from torch import nn

from trueloop.checkpoint import layout, store
from trueloop.checkpoint.find import find
from trueloop.checkpoint.weights import load_weights

RUN = """
import errno, os, sys, threading
import torch
from torch import nn
import trueloop as tl
from trueloop.checkpoint.disk import Disk
from trueloop.errors import CheckpointError, PeerError
from trueloop.parallel import shards

FIRST = os.environ["RANK"] == "0"
at = [0]  # the step of this process's training

def run(out, before=lambda operation, save: None, watch=lambda trainer, step: None, resume=None, **saving):
    '''A run whose processes call `before` at each operation of writing their shards, of the first save, the second …'''
    opened = [0]

    def operating(operation, path):
        opened[0] += operation == "open"
        before(operation, opened[0])

    shards.DISK = Disk(operating)
    torch.manual_seed(0)
    x, y = torch.randint(0, 6, (96, 3)), torch.randint(0, 3, (96,))  # no sample has the embedding's last two rows
    model = nn.Sequential(nn.Embedding(8, 4), nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 3))
    adamw, average = tl.optim.adamw(lr=1e-2), tl.optim.ema(0.9)
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), adamw, average=average, parallel="fsdp")
    told = []

    def seen(event):
        if isinstance(event, tl.StepEnded):
            at[0] = event.step
            watch(trainer, event.step)
        elif isinstance(event, (tl.Saved, tl.SaveFailed)):
            told.append((type(event).__name__, event.step, at[0], getattr(event, "reason", "")))

    try:
        how = tl.Saving(every_steps=4, keep_last=9, **saving)
        trainer.fit((x, y), steps=20, batch_size=16, seed=1, progress=False, out=out, saving=how, resume=resume,
                    observers=[seen])
    except (CheckpointError, PeerError) as error:
        told.append((type(error).__name__, 0, at[0], str(error)))
    every = [*model.parameters(), *trainer.averaged.parameters()]
    return torch.cat([p.full_tensor().flatten() for p in every]).detach(), told
"""

ONE_AFTER_THE_OTHER = (
    RUN
    + """
out, saved = sys.argv[2], {}
def asked(trainer, step):
    if step == 4:  # just before the run is saved, which may still write its beginning
        trainer.save(out + "/asked")

saved["unbroken"] = run(out + "/unbroken", watch=asked)

def full(operation, save):
    if not FIRST and operation == "write" and save == 3:  # that of step 8
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

saved["full"] = run(out + "/full", full)
seventh = threading.Event()

def slow(operation, save):
    if not FIRST and operation == "write" and save == 2:  # that of step 4
        assert seventh.wait(100), "training waits for the disk"

saved["slow"] = run(out + "/slow", slow, lambda trainer, step: seventh.set() if step == 7 else None)

def broken(trainer, step):
    if step == 6 and not FIRST:
        trainer.model[0].weight.data.to_local()[-1] = torch.nan  # a row that no sample has

saved["broken"] = run(out + "/broken", watch=broken)
saved["full, stop"] = run(out + "/stop", full, on_failure="stop")
if FIRST:
    torch.save(saved, sys.argv[1])
"""
)

KILLED = (
    RUN
    + """
def killed(operation, save):
    if not FIRST and operation == "fsync" and save == 4:  # that of step 12
        os.kill(os.getpid(), 9)

resume = sys.argv[3] == "resume"
weights, _ = run(sys.argv[2], resume=sys.argv[2]) if resume else run(sys.argv[2], killed)
if FIRST:
    torch.save(weights, sys.argv[1])
"""
)

Told = list[tuple[str, int, int, str]]


def net() -> nn.Module:
    return nn.Sequential(nn.Embedding(8, 4), nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 3))


def newest(run: Path) -> Path:
    return store.entries(run / "checkpoints")[-1].path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(launch: Launch, out: Path) -> dict[str, tuple[torch.Tensor, Told]]:
    saved: dict[str, Any] = launch(ONE_AFTER_THE_OTHER, 2, str(out))
    return saved


@pytest.mark.slow
def test_each_process_writes_its_parts_and_nothing_is_a_pickle(runs: Any, out: Path) -> None:
    path = newest(out / "unbroken")
    assert store.damage(path) is None
    assert store.unlisted(path) == []
    files = {file.name for file in path.iterdir()}
    assert {"shard-00001.safetensors", "shard-00002.safetensors"} <= files
    for name in files:
        content = (path / name).read_bytes()
        json.loads(content if name.endswith(".json") else content[8 : 8 + int.from_bytes(content[:8], "little")])
    parts = [load_file(path / f"shard-0000{number}.safetensors") for number in (1, 2)]
    assert [part["model.safetensors/0.weight"].shape for part in parts] == [(4, 4), (4, 4)]
    assert any(name.startswith("optimizer.safetensors/") for name in parts[1])
    assert any(name.startswith("state.safetensors/averaged/") for name in parts[1])
    assert "model.safetensors" not in files  # all of it lies in parts


@pytest.mark.slow
def test_one_process_reads_what_two_have_written(runs: Any, out: Path) -> None:
    model, average = net(), net()
    load_weights(model, newest(out / "unbroken"))
    load_weights(average, out / "unbroken" / "model.safetensors")  # which evaluations are made with
    both = [p.detach().flatten() for p in (*model.parameters(), *average.parameters())]
    assert torch.equal(torch.cat(both), runs["unbroken"][0])
    assert torch.equal(find(out / "unbroken").state["averaged"]["module.0.weight"], average.state_dict()["0.weight"])


@pytest.mark.slow
def test_a_checkpoint_that_an_observer_asks_for_is_the_one_that_the_run_makes_then(runs: Any, out: Path) -> None:
    asked, own = find(out / "asked").trees, find(out / "full", 4).trees
    assert asked["model"].keys() == own["model"].keys()
    assert all(torch.equal(asked["model"][name], own["model"][name]) for name in own["model"])
    moments, others = asked["optimizer"][""]["state"], own["optimizer"][""]["state"]
    assert moments.keys() == others.keys() == set(range(5))
    assert all(torch.equal(moments[index]["exp_avg"], others[index]["exp_avg"]) for index in moments)


@pytest.mark.slow
def test_a_process_whose_disk_is_full_leaves_nothing_and_the_run_goes_on(runs: Any, out: Path) -> None:
    weights, told = runs["full"]
    failed = [reason for kind, step, _, reason in told if kind == "SaveFailed"]
    assert len(failed) == 1
    assert "the checkpoint could not be saved: process 1: No space left on device; free some space" in failed[0]
    assert [step for kind, step, _, _ in told if kind == "Saved"] == [0, 4, 12, 16, 20, 20]
    left = sorted(path.name for path in (out / "full" / "checkpoints").iterdir())
    assert left == [*map(layout.folder_name, (0, 4, 12, 16)), layout.folder_name(20, 2)]
    assert torch.equal(weights, runs["unbroken"][0])


@pytest.mark.slow
def test_it_stops_the_run_where_that_is_asked_for(runs: Any) -> None:
    _, told = runs["full, stop"]
    assert told[-1][0] == "CheckpointError"
    assert "process 1: No space left on device" in told[-1][3]


@pytest.mark.slow
def test_training_goes_on_while_shards_are_written(runs: Any) -> None:
    weights, told = runs["slow"]
    (at,) = [at for kind, step, at, _ in told if (kind, step) == ("Saved", 4)]
    assert at >= 7  # until then, process 1 was kept from writing
    assert torch.equal(weights, runs["unbroken"][0])


@pytest.mark.slow
def test_a_nan_in_the_part_of_another_process_is_not_saved(runs: Any, out: Path) -> None:
    _, told = runs["broken"]
    assert [step for kind, step, _, _ in told if kind == "Saved"] == [0, 4]
    reasons = {reason for kind, _, _, reason in told if kind == "SaveFailed"}
    assert len(reasons) == 1
    assert "the weights hold NaN or Inf (0.weight)" in reasons.pop()


@pytest.mark.slow
def test_a_kill_in_the_middle_of_writing_leaves_whole_checkpoints(
    runs: Any, launch: Launch, environments: Callable[[int], list[Mapping[str, str]]], tmp_path: Path
) -> None:
    script, run = tmp_path / "killed.py", tmp_path / "run"
    script.write_text(KILLED)
    started = [
        subprocess.Popen([sys.executable, str(script), "-", str(run), "anew"], env=own, stderr=subprocess.DEVNULL)
        for own in environments(2)
    ]
    try:
        codes = [process.wait(SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes[1] == -9
    assert codes[0] not in (0, -9)
    entries = store.entries(run / "checkpoints")
    assert [entry.step for entry in entries] == [0, 4, 8]
    assert [store.damage(entry.path) for entry in entries] == [None] * 3
    assert torch.equal(launch(KILLED, 2, str(run), "resume"), runs["unbroken"][0])
