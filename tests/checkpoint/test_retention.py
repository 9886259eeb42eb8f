"""Checkpoints are kept as asked; of the others nothing is left, and of none a half."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from trueloop.checkpoint.disk import Disk
from trueloop.checkpoint.retention import retain, set_aside, sweep
from trueloop.checkpoint.store import Snapshot, damage, entries, newest, read, write
from trueloop.errors import ArgumentError, CheckpointError
from trueloop.testing import FailingDisk


def snapshot(step: int, loss: float = 0.5) -> Snapshot:
    tensors = {"model.safetensors": {"weight": torch.full((3, 2), float(step))}}
    return Snapshot(step, 3, "every step", {"loss": loss}, None, {"step": step}, tensors)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


def filled(folder: Path, *steps: int) -> list[Path]:
    return [write(folder, snapshot(step)) for step in steps]


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def kept(folder: Path) -> list[int]:
    return [entry.step for entry in entries(folder)]


@pytest.mark.parametrize(
    ("policy", "steps"),
    [
        ({"keep_last": 2}, [5, 6]),
        ({"keep_last": 9}, [1, 2, 3, 4, 5, 6]),
        ({"keep_last": 1, "keep_best": 2}, [2, 4, 6]),
        ({"keep_last": 1, "keep_best": 1, "mode": "max"}, [1, 6]),
        ({"keep_last": 1, "keep_best": 2, "best": "accuracy"}, [6]),
        ({"keep_last": 1, "keep_every": 2}, [2, 4, 6]),
        ({"keep_last": 1, "keep_best": 1, "keep_every": 5}, [4, 5, 6]),
    ],
    ids=str,
)
def test_what_is_kept(folder: Path, policy: dict[str, Any], steps: list[int]) -> None:
    losses = {1: 0.9, 2: 0.2, 3: math.nan, 4: 0.1, 5: 0.2, 6: 0.8}
    for step, loss in losses.items():
        write(folder, snapshot(step, loss))
    removed = retain(folder, **policy)
    assert kept(folder) == steps
    assert names(removed) == [f"step-{step:08d}" for step in losses if step not in steps]
    assert len(list(folder.iterdir())) == len(steps)
    assert retain(folder, **policy) == []


def test_of_one_step_the_newest_is_kept(folder: Path) -> None:
    filled(folder, 1, 1, 2, 2, 2)
    retain(folder, keep_last=2)
    assert names([entry.path for entry in entries(folder)]) == ["step-00000001-2", "step-00000002-3"]


def test_damaged_ones_do_not_count_and_stay(folder: Path) -> None:
    *_, newer_one = filled(folder, 1, 2, 3, 4)
    (newer_one / "state.json").unlink()
    assert names(retain(folder, keep_last=1)) == ["step-00000001", "step-00000002"]
    assert kept(folder) == [3, 4]


def test_a_damaged_second_of_a_step_does_not_supersede_the_first(folder: Path) -> None:
    _, second = filled(folder, 1, 1)
    (second / "state.json").unlink()
    assert retain(folder, keep_last=1) == []


@pytest.mark.parametrize(
    "policy", [{"keep_last": 0}, {"keep_last": 1, "keep_best": -1}, {"keep_last": 1, "keep_every": 0}], ids=str
)
def test_a_policy_that_cannot_be_is_refused(folder: Path, policy: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="must be at least"):
        retain(folder, **policy)


def test_a_removal_that_fails_is_said_and_the_others_go_on(folder: Path) -> None:
    filled(folder, 1, 2, 3, 4)
    with pytest.raises(CheckpointError, match="could not be removed: step-00000001: No space"):
        retain(folder, keep_last=1, disk=FailingDisk(1))
    assert kept(folder) == [1, 4]
    retain(folder, keep_last=1)
    assert kept(folder) == [4]


@pytest.mark.parametrize("dead", [False, True])
def test_a_removal_that_is_cut_off_anywhere_leaves_whole_ones_only(folder: Path, dead: bool) -> None:
    for at in range(1, 1000):
        filled(folder, 1, 2, 3)
        disk = FailingDisk(at, dead=dead)
        try:
            retain(folder, keep_last=1, disk=disk)
        except CheckpointError:
            pass
        else:
            break
        assert all(damage(entry.path) is None for entry in entries(folder))
        assert kept(folder)[-1] == 3
        sweep(folder)
        assert all(path.name.startswith("step-") for path in folder.iterdir())
        retain(folder, keep_last=1)
        assert kept(folder) == [3]
        Disk().remove(folder)
    assert at > 10
    assert kept(folder) == [3]


# what a kill left, and what is set aside


def test_sweep_removes_what_a_kill_left_and_nothing_else(folder: Path) -> None:
    filled(folder, 1)
    for name in (".writing-step-00000002-7", ".gone-step-00000001-7"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").touch()
    (folder / "damaged-step-00000003").mkdir()
    assert names(sweep(folder)) == [".gone-step-00000001-7", ".writing-step-00000002-7"]
    assert sorted(names(list(folder.iterdir()))) == ["damaged-step-00000003", "step-00000001"]


def test_one_that_is_set_aside_is_no_candidate_and_is_not_lost(folder: Path) -> None:
    first, second = filled(folder, 100, 120)
    moved = set_aside(second, "abandoned")
    assert moved.name == "abandoned-step-00000120"
    assert newest(folder)[0].entry.path == first
    assert read(moved).tree == {"step": 120}
    (again,) = filled(folder, 120)
    assert again.name == "step-00000120"
    assert set_aside(again, "abandoned").name == "abandoned-step-00000120.2"
    assert retain(folder, keep_last=1) == []


def test_setting_aside_may_fail_and_says_so(folder: Path) -> None:
    (path,) = filled(folder, 100)
    with pytest.raises(CheckpointError, match="could not be set aside: No space"):
        set_aside(path, "damaged", FailingDisk(1))
    assert damage(path) is None


@pytest.mark.parametrize("word", ["../x", "", "step", ".gone", "A"])
def test_other_words_are_refused(folder: Path, word: str) -> None:
    (path,) = filled(folder, 100)
    with pytest.raises(ArgumentError, match="one lower-case word"):
        set_aside(path, word)
