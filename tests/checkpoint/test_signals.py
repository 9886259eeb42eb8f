"""Signals that ask a run to end: it saves itself at the end of the step, and goes on from there to the same bits."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import trueloop as tl
from trueloop.checkpoint import store
from trueloop.checkpoint.signals import Asked, listening
from trueloop.errors import REQUEUE, Preempted
from trueloop.events import Event
from trueloop.observers.run_folder import describe
from trueloop.testing import mlp, regression, same_bits

ASKING = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
STEP = 5
"""In which the signal comes; 3 steps an epoch."""


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ASKING}
    yield
    assert {number: signal.getsignal(number) for number in ASKING} == before


Send = Callable[[], object]


class Sends(Dataset[tuple[Tensor, Tensor]]):
    """Samples, in order; while the one at ``index`` is made for the second time, something is sent."""

    def __init__(self, samples: int, index: int | None, send: Send) -> None:
        self.x, self.y = regression(samples)
        self.index, self.send, self.left = index, send, 1

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == self.index:
            self.left -= 1
            if self.left == -1:
                self.send()
        return self.x[index] + 0.1 * torch.randn(3), self.y[index]


def run(out: Path, where: str, send: Send, **how: Any) -> tl.Trainer:
    """3 epochs of 3 steps, evaluated after each; in one place something is sent, once."""

    def sees(event: Event) -> None:
        if isinstance(event, tl.StepEnded) and event.step == STEP and where == "observer":
            send()

    passes = [0]

    def passing(module: nn.Module, inputs: Any) -> None:
        passes[0] += module.training
        if passes[0] == STEP and where == "model" and module.training:
            send()

    model = mlp(dropout=0.3)
    model.register_forward_pre_hook(passing)
    trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.adam(lr=0.02), average=tl.optim.ema(0.8))
    train = Sends(12, 5 if where == "data" else None, send)
    val = DataLoader(Sends(6, 2 if where == "evaluation" else None, send), batch_size=2)  # draws from the global RNGs
    trainer.fit(
        train, val, epochs=3, batch_size=4, seed=3, shuffle=False, out=out, progress=False, observers=[sees], **how
    )
    return trainer


PLACES = {"observer": STEP, "model": STEP, "data": STEP, "evaluation": 6}
"""Where it comes, and the steps that the run has when it ends."""


@pytest.mark.parametrize("number", ASKING, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("where", PLACES)
def test_it_ends_after_the_step_saved_and_goes_on_to_the_same_bits(
    where: str, number: signal.Signals, folder: Path
) -> None:
    whole = run(folder / "whole", "nowhere", lambda: None)
    out = folder / "run"
    expected: type[BaseException] = KeyboardInterrupt if number == signal.SIGINT else Preempted
    with pytest.raises(expected) as raised:
        run(out, where, lambda: signal.raise_signal(number))
    if isinstance(raised.value, Preempted):
        assert (raised.value.code, str(raised.value)) == (REQUEUE, f"preempted by {number.name}")
    facts = describe(out)
    assert facts["status"] == ("interrupted" if number == signal.SIGINT else "preempted")
    assert facts["steps"] == PLACES[where]
    newest = store.entries(out / "checkpoints")[-1]
    assert (newest.step, newest.why, newest.exact) == (PLACES[where], number.name, None)
    assert (out / "model.safetensors").is_file()
    if where == "evaluation":  # a scheduler gives seconds: what it breaks off is made again after the resume
        evaluated = (out / "events.jsonl").read_text().count('"EvalEnded"')
        assert evaluated == (2 if number == signal.SIGINT else 1)
    resumed = run(out, "nowhere", lambda: None, resume="auto")
    assert same_bits(resumed.model, whole.model)
    assert resumed.averaged is not None
    assert whole.averaged is not None
    assert same_bits(resumed.averaged, whole.averaged)
    assert describe(out)["status"] == "finished"


@pytest.mark.parametrize("where", PLACES)
def test_a_second_ctrl_c_ends_at_once_without_saving(
    where: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        assert "Ctrl-C again ends at once, without saving" in capfd.readouterr().err
        signal.raise_signal(signal.SIGINT)

    out = folder / "run"
    with pytest.raises(KeyboardInterrupt):
        run(out, where, twice)
    assert describe(out)["status"] == "interrupted"
    assert "RunEnded" in (out / "events.jsonl").read_text().splitlines()[-1]
    steps = [entry.step for entry in store.entries(out / "checkpoints")]
    assert steps == ([0, STEP] if where == "observer" else [0])  # between two steps there is nothing to lose
    whole = run(folder / "whole", "nowhere", lambda: None)
    assert same_bits(run(out, "nowhere", lambda: None, resume="auto").model, whole.model)


def test_the_last_of_two_signals_counts(folder: Path) -> None:
    def both() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Preempted):
        run(folder / "run", "model", both)


def test_a_handler_of_the_users_own_is_left_alone(folder: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        run(folder / "run", "model", lambda: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert describe(folder / "run")["status"] == "finished"


def test_what_is_ignored_stays_ignored(folder: Path) -> None:
    """As a shell has it for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(folder / "run", "model", lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert describe(folder / "run")["status"] == "finished"


def test_without_a_folder_nothing_is_listened_to() -> None:
    seen: list[Any] = []
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    trainer.fit(
        regression(8), epochs=1, batch_size=4, progress=False,
        observers=[lambda event: seen.append([signal.getsignal(number) for number in ASKING])],
    )  # fmt: skip
    assert all(one == [signal.getsignal(number) for number in ASKING] for one in seen)
    assert len(seen) > 3


def test_a_run_in_another_thread_does_not_listen_and_goes_on(folder: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []
    thread = threading.Thread(
        target=run, args=(folder / "run", "model", lambda: seen.append(signal.getsignal(signal.SIGTERM)))
    )
    thread.start()
    thread.join()
    assert seen == [before]
    assert describe(folder / "run")["status"] == "finished"


@pytest.mark.parametrize("number", ASKING)
def test_handlers_are_put_back_also_after_an_error(number: signal.Signals) -> None:
    before, asked = signal.getsignal(number), Asked()
    with contextlib.suppress(ZeroDivisionError), listening(asked):
        assert signal.getsignal(number) != before
        raise ZeroDivisionError
    assert signal.getsignal(number) == before
    assert asked.signal is None


@pytest.mark.parametrize("number", ASKING, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("where", ["observer", "model"])
def test_a_signal_to_the_whole_group_ends_no_worker_before_the_step(
    where: str, number: signal.Signals, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a terminal sends Ctrl-C, and many a scheduler its SIGTERM."""

    def send() -> None:
        workers = multiprocessing.active_children()
        assert len(workers) >= 2
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, number)
        signal.raise_signal(number)

    whole = run(folder / "whole", "nowhere", lambda: None)
    with pytest.raises((Preempted, KeyboardInterrupt)):
        run(folder / "run", where, send, workers=2)
    assert capfd.readouterr().err.count("ending after this step") == (number == signal.SIGINT)
    assert store.entries(folder / "run" / "checkpoints")[-1].step == PLACES[where]
    assert same_bits(run(folder / "run", "nowhere", lambda: None, resume="auto", workers=2).model, whole.model)


class SendsFromAWorker(Dataset[tuple[Tensor, Tensor]]):
    """The worker that is at work when it first comes to a sample tells the whole group, itself included."""

    def __init__(self, number: signal.Signals, sent: Path) -> None:
        self.x, self.y = regression(12)
        self.number, self.sent, self.main = number, sent, os.getpid()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 9 and not self.sent.exists():
            self.sent.touch()
            os.kill(self.main, self.number)
            os.kill(os.getpid(), self.number)
        return self.x[index], self.y[index]


@pytest.mark.parametrize("number", ASKING, ids=lambda number: signal.Signals(number).name)
def test_a_worker_that_is_told_as_well_still_gives_the_batch_that_the_step_needs(
    number: signal.Signals, folder: Path
) -> None:
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1), accumulate=3)
    data = SendsFromAWorker(number, folder / "sent")
    with pytest.raises((Preempted, KeyboardInterrupt)):
        trainer.fit(data, epochs=2, batch_size=4, shuffle=False, workers=2, out=folder / "run", progress=False, seed=1)
    newest = store.entries(folder / "run" / "checkpoints")[-1]
    assert (newest.step, newest.exact) == (1, None)
