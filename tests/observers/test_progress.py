from __future__ import annotations

import io
import itertools
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import trueloop
from trueloop.doctor.findings import Finding
from trueloop.events import EpochEnded, EvalEnded, Event, Found, RunEnded, RunStarted, StepEnded
from trueloop.observers import Progress
from trueloop.observers.screen import Notebook, Terminal, choose_screen

Stepped = Callable[..., StepEnded]
Evaluated = Callable[..., EvalEnded]


def shown(events: list[Event], **console: Any) -> str:
    """What is printed at a file, or at a terminal without its control codes."""
    file = io.StringIO()
    progress = Progress(Console(file=file, width=100, **console))
    for event in events:
        progress(event)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


@pytest.fixture
def run(started: RunStarted, stepped: Stepped, evaluated: Evaluated) -> list[Event]:
    return [
        started,
        *(stepped(step, epoch=0) for step in (1, 2, 3)),
        evaluated(3, 0.5, accuracy=0.75),
        EpochEnded(0, 3, 0.625, 12, 1.5),
        *(stepped(step, epoch=1) for step in (4, 5, 6)),
        evaluated(6, 0.75, epoch=1, accuracy=0.8125),
        EpochEnded(1, 6, 0.375, 12, 0.5),
        RunEnded(6, 2, "finished", 2.5),
    ]


def test_a_file_gets_the_plan_a_line_per_epoch_and_a_summary(run: list[Event], started: RunStarted) -> None:
    assert shown(run).splitlines() == [
        *started.plan.lines(),
        "epoch 1/2 · step 3 · train loss 0.625 · val loss 0.5, accuracy 0.75 · rate 0.1 · 1.5 s",
        "epoch 2/2 · step 6 · train loss 0.375 · val loss 0.75, accuracy 0.8125 · rate 0.1 · 0.5 s",
        "finished · 6 steps in 2.5 s · 12 samples/s",
        "  best  val loss 0.5, accuracy 0.75 at step 3",
        "  last  val loss 0.75, accuracy 0.8125 at step 6",
    ]


def test_an_evaluation_within_an_epoch_gets_its_own_line(
    started: RunStarted, stepped: Stepped, evaluated: Evaluated
) -> None:
    text = shown([started, stepped(1), evaluated(1, 0.5), stepped(2), EpochEnded(0, 2, 0.4, 8, 1.0)])
    assert text.splitlines()[-2:] == [
        "step 1 · val loss 0.5 · 0.25 s",
        "epoch 1/2 · step 2 · train loss 0.4 · rate 0.1 · 1 s",
    ]


def test_a_long_line_is_not_broken(started: RunStarted, evaluated: Evaluated) -> None:
    metrics = {f"metric_{i}": i / 10 for i in range(20)}
    line = shown([started, evaluated(3, 0.5, **metrics), EpochEnded(0, 3, 0.4, 8, 1.0)]).splitlines()[-1]
    assert all(name in line for name in metrics)


def test_nothing_in_brackets_is_lost(started: RunStarted) -> None:
    assert "failed: KeyError: [red]" in shown([started, RunEnded(0, 0, "failed: KeyError: [red]", 1.0)])


def test_a_run_without_an_evaluation_and_an_interrupted_one(started: RunStarted, stepped: Stepped) -> None:
    last = shown([started, stepped(1), RunEnded(1, 0, "interrupted", 0.5)]).splitlines()[-1]
    assert last == "interrupted · 1 step in 0.5 s · 8 samples/s"


def test_a_file_costs_no_reading_of_losses(started: RunStarted, stepped: Stepped) -> None:
    unreadable = stepped(1)._replace(loss=torch.empty((), device="meta"))
    assert "epoch 1/2" in shown([started, unreadable, EpochEnded(0, 1, 0.4, 8, 1.0)])


def test_a_terminal_shows_all_that_one_looks_for(run: list[Event]) -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True, width=100), clock=itertools.count(0.0, 0.2).__next__)
    for event in run:
        progress(event)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert "epoch 1/2 · step 3 · train loss 0.625" in text
    assert text.endswith("  last  val loss 0.75, accuracy 0.8125 at step 6\n")
    drawings = [line for line in text.splitlines() if "samples/s" in line or "left" in line]
    assert any(re.search(r"epoch 2/2 .*step 6/6 .*\d:\d\d, \d:\d\d left", line) for line in drawings), text
    assert any("loss 0.5 · val loss 0.5, accuracy 0.75 · rate 0.1" in line for line in text.splitlines()), text


def test_a_terminal_is_redrawn_ten_times_a_second_at_most(started: RunStarted, stepped: Stepped, clock: Any) -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True, width=100), clock=clock)
    progress(started)
    sizes = []
    unreadable = stepped(1)._replace(loss=torch.empty((), device="meta"))
    for step in range(1, 100):
        clock.now += 0.001
        progress(unreadable._replace(step=step))  # reading this loss would raise: none is read between drawings
        sizes.append(len(file.getvalue()))
    assert len(set(sizes)) == 1
    clock.now += 0.03
    progress(stepped(100))
    assert len(file.getvalue()) > sizes[-1]
    progress(RunEnded(100, 0, "finished", 1.0))


def test_short_epochs_are_drawn_ten_times_a_second_at_most_and_all_said(
    started: RunStarted, stepped: Stepped, evaluated: Evaluated, clock: Any
) -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True, width=100), clock=clock)
    progress(started)
    drawings = []
    for epoch in range(1000):
        for event in (
            stepped(epoch + 1, epoch=epoch),
            evaluated(epoch + 1, 0.5, epoch=epoch),
            EpochEnded(epoch, epoch + 1, 0.5, 4, 0.003),
        ):
            before = file.tell()
            progress(event)
            if file.tell() > before:
                drawings.append(clock.now)
            clock.now += 0.001
    progress(RunEnded(1000, 1000, "finished", 3.0))
    assert 24 <= len(drawings) <= 30
    assert all(sum(start <= at < start + 1.0 for at in drawings) <= 10 for start in drawings)
    assert file.getvalue().count("· train loss 0.5 · val loss 0.5 ·") == 1000


def test_the_end_of_a_slow_epoch_is_said_at_once(started: RunStarted, stepped: Stepped, clock: Any) -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True, width=100), clock=clock)
    progress(started)
    clock.now += 10.0
    progress(stepped(1))
    progress(EpochEnded(0, 1, 0.5, 4, 10.0))
    assert "epoch 1/2 · step 1 · train loss 0.5" in file.getvalue()
    progress(RunEnded(1, 1, "finished", 10.0))


def test_speed_and_time_left(started: RunStarted, stepped: Stepped, evaluated: Evaluated, clock: Any) -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True, width=100), clock=clock)
    progress(started)
    clock.now += 20.0
    progress(stepped(1))
    assert "step 1/6 0:20, 1:40 left" in file.getvalue()
    assert "0 samples/s" in file.getvalue()
    clock.now += 10.25  # a quarter of a second of it is the evaluation's
    progress(evaluated(1, 0.5))
    progress(stepped(2)._replace(samples=4000))
    assert f"{0.7 * 0.2 + 0.3 * 400:,.0f} samples/s" in file.getvalue()
    progress(RunEnded(2, 0, "finished", 1.0))


def test_no_thread_is_started(run: list[Event]) -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True))
    before = threading.active_count()
    for event in run[:4]:
        progress(event)
    assert threading.active_count() == before
    progress(run[-1])


def test_a_second_run_starts_anew(run: list[Event]) -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file))
    for event in run:
        progress(event)
    first = file.getvalue()
    for event in run:
        progress(event)
    assert file.getvalue() == first + first


def test_a_plan_that_does_not_know_its_length(started: RunStarted, stepped: Stepped, clock: Any) -> None:
    from dataclasses import replace

    unknown = started._replace(plan=replace(started.plan, steps=None, steps_per_epoch=None, samples=None))
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True, width=100), clock=clock)
    for event in (unknown, stepped(1), EpochEnded(0, 1, 0.5, 4, 1.0)):
        progress(event)
    clock.now += 1.0
    progress(stepped(2, epoch=1))
    text = file.getvalue()
    assert "step 2/2" in text  # the first epoch has told
    progress(RunEnded(2, 2, "finished", 1.0))


class Cell:
    """What a notebook's ``display`` gives, and all that it was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Cell:
        assert raw
        assert display_id
        self.shown.append(bundle["text/plain"])
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(bundle["text/plain"])


def test_a_notebook_shows_one_output_that_is_updated() -> None:
    cell = Cell()
    screen = Notebook(cell)
    screen.line("plan")
    screen.draw("loss 0.5")
    screen.draw("loss 0.4")
    screen.line("epoch 1")
    screen.close()
    assert cell.shown == ["plan\nloss 0.5", "plan\nloss 0.4", "plan\nepoch 1"]


def test_a_dumb_terminal_gets_lines() -> None:
    assert not choose_screen(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})).live
    assert isinstance(choose_screen(Console(file=io.StringIO(), force_terminal=True)), Terminal)


def test_at_a_real_terminal(tmp_path: Path) -> None:
    code = """
import torch
from trueloop.events import RunEnded, StepEnded
from trueloop.observers import Progress
progress = Progress()
progress(StepEnded(1, 0, torch.tensor(0.5), 4, 0.1, None, {}, False))
print("a line of the user's")
progress(RunEnded(1, 0, "finished", 1.0))
"""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1]), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        text = b""
        while chunk := read(ours):
            text += chunk
    os.close(ours)
    assert process.returncode == 0, text.decode()
    assert text.count(b"loss 0.5") >= 2  # drawn, and drawn again below the user's line
    assert b"a line of the user's" in text
    assert b"finished \xc2\xb7 1 step in 1 s" in text
    assert text.index(b"\x1b[?25l") < text.index(b"\x1b[?25h")  # the cursor is hidden, and comes back


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other end has closed
        return b""


def test_a_finding_is_shown_as_the_command_shows_it() -> None:
    finding = Finding("late", 1, "note", "likely", "``step()`` comes late", help="call ``step()`` first")
    assert shown([Found(3, finding)]) == "note[late]: `step()` comes late. call `step()` first\n"
