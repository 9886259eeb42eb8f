from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trueloop.errors import TrueloopError
from trueloop.events import EpochEnded, EvalEnded, RunEnded, RunStarted, StepEnded
from trueloop.observers import TensorBoard

Stepped = Callable[..., StepEnded]
Evaluated = Callable[..., EvalEnded]


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator: Any = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(point.step, round(point.value, 6)) for point in accumulator.Scalars(tag)] for tag in tags}


def test_a_run_is_read_back_by_tensorboard(
    tmp_path: Path, started: RunStarted, stepped: Stepped, evaluated: Evaluated, clock: Any
) -> None:
    observer = TensorBoard(tmp_path / "tensorboard", clock=clock)
    observer(started)
    observer(stepped(1, 0.5, grad_norm=2.0))
    clock.now += 0.125
    observer(stepped(2, 0.25))
    observer(evaluated(2, 0.75, accuracy=0.5))
    observer(EpochEnded(0, 2, 0.375, 8, 1.0))
    observer(stepped(3, 0.125, epoch=1))
    observer(RunEnded(3, 2, "finished", 1.0))
    assert read_back(tmp_path / "tensorboard") == {
        "loss/train": [(1, 0.5), (2, 0.25), (3, 0.125)],
        "lr": [(1, 0.1), (2, 0.1), (3, 0.1)],
        "grad_norm": [(1, 2.0)],
        "loss/val": [(2, 0.75)],
        "accuracy/val": [(2, 0.5)],
    }
    accumulator: Any = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert [point.wall_time for point in accumulator.Scalars("loss/train")] == [1000.0, 1000.125, 1000.125]


def test_a_batch_of_many_steps_is_thinned_and_keeps_its_last(tmp_path: Path, stepped: Stepped, clock: Any) -> None:
    observer = TensorBoard(tmp_path, clock=clock)
    for step in range(1, 513):
        observer(stepped(step))
    observer.close()
    assert [step for step, _ in read_back(tmp_path)["loss/train"]] == list(range(4, 513, 4))


def test_slow_steps_are_all_there_and_reach_the_disk_after_a_second(
    tmp_path: Path, stepped: Stepped, clock: Any
) -> None:
    observer = TensorBoard(tmp_path, clock=clock)
    observer(stepped(1))
    clock.now += 1.0
    observer(stepped(2))
    assert [step for step, _ in read_back(tmp_path)["loss/train"]] == [1, 2]
    observer.close()


def test_nan_is_kept(tmp_path: Path, stepped: Stepped) -> None:
    observer = TensorBoard(tmp_path)
    observer(stepped(1, math.nan))
    observer.close()
    ((_, loss),) = read_back(tmp_path)["loss/train"]
    assert math.isnan(loss)


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path: Path, started: RunStarted) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrueloopError, match="cannot be written"):
        TensorBoard(tmp_path / "file" / "folder")(started)


def test_without_the_package_the_error_carries_the_install_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard.py").write_text("raise ImportError('as if it were not there')")
    code = f"""
import sys
from trueloop.observers import TensorBoard
from trueloop.errors import MissingExtraError
sys.path.insert(0, {str(tmp_path)!r})
try:
    TensorBoard("runs")
except MissingExtraError as error:
    print(error)
"""
    import os

    import trueloop

    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "pip install 'trueloop[tensorboard]'" in ended.stdout


def test_a_run_that_goes_on_replaces_the_steps_that_come_again(
    tmp_path: Path, started: RunStarted, stepped: Stepped
) -> None:
    for first, last in ((0, 6), (4, 8)):  # broken off after step 6, gone on with from step 4
        board = TensorBoard(tmp_path)  # files are read in the order of their names, which have the time in ns
        board(started._replace(step=first))
        for step in range(first + 1, last + 1):
            board(stepped(step, float(step)))
        board(RunEnded(last, 0, "finished", 1.0))
    assert [step for step, _ in read_back(tmp_path)["loss/train"]] == [1, 2, 3, 4, 5, 6, 7, 8]
