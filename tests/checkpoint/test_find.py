"""What a run goes on from is found wherever one stands, and read once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trueloop.checkpoint import store
from trueloop.checkpoint.find import find
from trueloop.checkpoint.layout import folder_name
from trueloop.checkpoint.saving import fresh_copies, snapshot_of


def save(run: Path, step: int) -> Path:
    trees: dict[str, Any] = {
        "model": {"weight": torch.ones(2)},
        "optimizer": {"m": torch.ones(2)},
        "state": {"at": step},
    }
    return store.write(run / "checkpoints", snapshot_of(trees, fresh_copies(), step, 0, "a test"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two checkpoints, of steps 4 and 8."""
    save(tmp_path / "run", 4)
    save(tmp_path / "run", 8)
    return tmp_path / "run"


@pytest.fixture
def at_each_opening(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Has a function called with every file, just before it is opened."""
    really = os.open

    def watch(sees: Callable[[Path], None]) -> None:
        def watched(path: Any, *how: Any, **more: Any) -> int:
            sees(Path(path))
            return really(path, *how, **more)

        monkeypatch.setattr(os, "open", watched)

    return watch


# reading


def test_each_file_of_the_newest_is_read_once(run: Path, at_each_opening: Callable[..., None]) -> None:
    opened: Counter[str] = Counter()
    at_each_opening(lambda file: opened.update([str(file.relative_to(run))]))
    assert find(run).entry.step == 8
    newest = run / "checkpoints" / folder_name(8)
    files = [f"checkpoints/{newest.name}/{name}" for name in os.listdir(newest)]
    assert opened == dict.fromkeys(files, 1)
    assert len(files) == 4


@pytest.mark.parametrize("opening", [1, 2])
@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_damage_that_comes_while_it_looks_is_named_and_gone_back_behind(
    run: Path, at_each_opening: Callable[..., None], name: str, opening: int
) -> None:
    """Whenever it comes: what was verified is what is used, and nothing is read again."""
    opened: Counter[Path] = Counter()
    newest = run / "checkpoints" / folder_name(8)

    def harm(file: Path) -> None:
        opened.update([file])
        if file == newest / name and opened[file] == opening:
            with file.open("r+b") as harmed:
                harmed.write(b"?")

    at_each_opening(harm)
    origin = find(run)
    if opening == 1:
        assert (origin.entry.step, origin.state) == (4, {"at": 4})
        (line,) = origin.passed
        assert line.startswith(f"{newest.name} is damaged and was passed over: {name}")
    else:
        assert (origin.entry.step, origin.state, origin.passed) == (8, {"at": 8}, [])


# where one stands


@pytest.mark.parametrize(
    ("there", "called", "step"),
    [
        ("run/checkpoints", "step-00000004", 4),
        ("run/checkpoints", "../checkpoints/step-00000004", 4),
        ("run/checkpoints", ".", 8),
        ("run/checkpoints", "..", 8),
        ("run/checkpoints/step-00000008", "../step-00000004", 4),
        ("run/checkpoints/step-00000004", ".", 4),
        ("run/checkpoints/step-00000004", "..", 8),
        ("run", ".", 8),
        ("run", "checkpoints", 8),
        (".", "run", 8),
    ],
)
def test_relative_to_where_one_stands(
    run: Path, monkeypatch: pytest.MonkeyPatch, there: str, called: str, step: int
) -> None:
    monkeypatch.chdir(run.parent / there)
    origin = find(called)
    assert (origin.entry.step, origin.run) == (step, run)


def test_checkpoints_on_a_larger_disk_belong_to_the_run_that_links_there(run: Path) -> None:
    (run / "checkpoints").rename(run.parent / "larger")
    (run / "checkpoints").symlink_to(run.parent / "larger")
    for folder in (run, run / "checkpoints", run / "checkpoints" / folder_name(8)):
        assert find(folder).run == run
