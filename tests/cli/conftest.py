"""A recipe of one's own, and the command in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from trueloop.cli.main import main

TINY = '''
"""A module with recipes."""

import torch
import trueloop as tl
from typing import Literal


def tiny(epochs: int = 2, lr: float = 0.5, kind: Literal["linear", "deep"] = "linear", bias: bool = True) -> tl.Recipe:
    """Two classes that a line tells apart.

    Args:
        epochs: how often it sees the data.
        lr: the peak of the rate.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 2, generator=generator)
    y = (x.sum(1) > 0).long()
    deep = [torch.nn.Linear(2, 2), torch.nn.ReLU()] if kind == "deep" else []
    model = torch.nn.Sequential(*deep, torch.nn.Linear(2, 2, bias=bias))
    trainer = tl.Trainer(model, torch.nn.CrossEntropyLoss(), tl.optim.sgd(lr=lr))
    return tl.Recipe(
        trainer,
        train=(x[:40], y[:40]),
        val=(x[40:56], y[40:56]),
        test=(x[56:], y[56:]),
        epochs=epochs,
        batch_size=8,
        seed=0,
        classes=("below", "above"),
    )


def regression(epochs: int = 1) -> tl.Recipe:
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    trainer = tl.Trainer(torch.nn.Linear(1, 1), torch.nn.MSELoss(), tl.optim.sgd(lr=0.1))
    return tl.Recipe(trainer, train=(x, x), val=(x, x), epochs=epochs, batch_size=4)


def unfinished(epochs: int = 1):
    return epochs


def nameless(*layers: int) -> tl.Recipe: ...


def greedy(out: str = "mine") -> tl.Recipe: ...


def wrong_loss() -> tl.Recipe:
    return tl.Recipe(tl.Trainer(torch.nn.Linear(1, 1), torch.nn.MSELoss(), tl.optim.sgd(lr=0.1)),
                     train=(torch.zeros(3, 1), torch.zeros(2, 1)), epochs=1, batch_size=2)


def stopped_by_hand() -> tl.Recipe:
    def press(event):
        if isinstance(event, tl.StepEnded):
            raise KeyboardInterrupt
    x = torch.zeros(4, 1)
    trainer = tl.Trainer(torch.nn.Linear(1, 1), torch.nn.MSELoss(), tl.optim.sgd(lr=0.1))
    return tl.Recipe(trainer, train=(x, x), epochs=1, batch_size=2, observers=[press])
'''


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """What went to standard error, its lines joined: where they are broken is the terminal's affair."""
        return " ".join(self.err.split())


Command = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test stands in its own folder, and leaves no module of it behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "100")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A reference to the tiny recipe."""
    (tmp_path / "mine.py").write_text(TINY)
    return "mine.py:tiny"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*arguments: str) -> Ended:
        capsys.readouterr()
        code = main(arguments)
        return Ended(code, *capsys.readouterr())

    return command
