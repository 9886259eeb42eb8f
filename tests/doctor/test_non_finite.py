"""What is told of NaN and Inf: what made them, on which line, and in which file the batch is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.graph import Graph
from trueloop.doctor.learnt import Learnt
from trueloop.doctor.listen import listening
from trueloop.doctor.precedence import nearest_to_the_cause
from trueloop.doctor.trace import CLOSE_STEPS


class Unit(nn.Module):
    """Scales rows to length one, those of zeros to NaN; it has no parameters, and so no graph over data."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.square().sum(1, keepdim=True).sqrt()


class WithUnit(nn.Module):
    """A model that scales its own data."""

    def __init__(self) -> None:
        super().__init__()
        self.unit, self.out = Unit(), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.out(self.unit(x))
        return rows


class Root(nn.Module):
    """A root over what a layer gives, whose slope is infinite at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        lengths: Tensor = h.square().sum(1, keepdim=True).sqrt()
        return lengths


def zeroed_at(row: int, rows: int = 160) -> Tensor:
    """Data with one row of zeros."""
    torch.manual_seed(0)
    data = torch.rand(rows, 4) + 1
    data[row] = 0
    return data


def train(
    model: nn.Module,
    data: Tensor,
    save_to: Path | None = None,
    loss_of: Callable[[Tensor, Tensor], Tensor] = lambda given, x: F.mse_loss(given, x[:, :1]),
    close_steps: int = CLOSE_STEPS,
) -> list[Finding]:
    """One pass over the data in batches of 8, heard."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with listening(close_steps=close_steps) as trace:
        trace.save_to = save_to
        for (x,) in DataLoader(TensorDataset(data), batch_size=8):
            optimizer.zero_grad()
            loss_of(model(x), x).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return [finding for finding in trace.findings if finding.name.startswith("non-finite")]


def line_of(function: Callable[..., object], text: str) -> Place:
    """Where a function says something."""
    lines, first = inspect.getsourcelines(function)
    return Place(__file__, first + next(n for n, line in enumerate(lines) if text in line))


def test_a_module_without_a_graph_is_told_and_its_finite_data_is_not_blamed() -> None:
    (found,) = train(WithUnit(), zeroed_at(100))
    assert found.message == "the module 'unit' (Unit) makes NaN of finite inputs"
    assert found.place == line_of(Unit.forward, "def forward")
    assert "samples 4 of the batch" in found.evidence


@pytest.mark.parametrize("close_steps", [10, 150], ids=["dozing", "heard"])
def test_finite_data_is_not_blamed_for_what_is_computed_from_it(close_steps: int) -> None:
    def loss_of(given: Tensor, x: Tensor) -> Tensor:
        return (given - x[:, :1]).square().mean() * (x.min() - x.min() / (x.min() > 0)).add(1)

    (found,) = train(nn.Linear(4, 1), zeroed_at(900, 1200), loss_of=loss_of, close_steps=close_steps)
    assert found.message.startswith("a value computed without a graph")
    assert "Mul takes it" in found.message
    assert found.place == line_of(loss_of, "return")


def test_the_line_is_that_of_the_operation_long_after_the_first_graphs() -> None:
    (found,) = train(Root(), zeroed_at(900, 1200))
    assert found.place == line_of(Root.forward, ".sqrt()")
    assert [label for _, label in found.related] == ["the backward"]


def test_steps_and_epochs_are_told_by_the_finding_alone() -> None:
    bad = zeroed_at(100)
    bad[100, 2] = float("nan")
    for found in (*train(WithUnit(), zeroed_at(100)), *train(nn.Linear(4, 1), bad)):
        assert found.step is not None
        assert not any("step" in one or "epoch" in one for one in found.evidence)


def test_the_batch_is_kept_once_and_named_and_says_what_it_holds(tmp_path: Path) -> None:
    (found,) = train(WithUnit(), zeroed_at(100), tmp_path)
    (file,) = tmp_path.iterdir()
    assert f"the batch is kept in {file}" in found.evidence
    with safe_open(file, "pt") as kept:
        assert set(kept.keys()) == {"input", "target"}
        about = kept.metadata()
        assert about["input"].startswith("argument 0 of WithUnit, called at ")
        assert about["target"].startswith("the targets of mse_loss, called at ")
        assert torch.equal(kept.get_tensor("input"), zeroed_at(100)[96:104])


def test_the_batch_that_is_kept_is_of_its_step_alone(tmp_path: Path) -> None:
    held_out, rows = torch.rand(5, 4), torch.split(zeroed_at(100), 8)
    model = WithUnit()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with listening() as trace:
        trace.save_to = tmp_path
        for x in rows:  # all of them live on
            with torch.no_grad():
                F.mse_loss(model(held_out), held_out[:, :1])
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    (file,) = tmp_path.iterdir()
    with safe_open(file, "pt") as kept:
        assert list(kept.keys()) == ["input"]
        assert torch.equal(kept.get_tensor("input"), rows[12])


def test_a_finding_on_the_input_names_the_batch_that_it_keeps(tmp_path: Path) -> None:
    bad = zeroed_at(100)
    bad[100, 2] = float("nan")
    (found,) = train(nn.Linear(4, 1), bad, tmp_path)
    assert (found.name, found.explains) == ("non-finite-input", ("non-finite-value",))
    (file,) = tmp_path.iterdir()  # the finding that it explains keeps no second one
    assert f"the batch is kept in {file}" in found.evidence


def test_operations_that_cannot_be_told_apart_have_no_line() -> None:
    weight = torch.ones(3, requires_grad=True)

    def graph(line: int | None) -> Graph:
        loss = (weight * 2).log()
        assert loss.grad_fn is not None
        about: dict[str, list[str]] = loss.grad_fn.metadata  # type: ignore[assignment]
        if line is not None:
            about["traceback_"] = [f'  File "/home/someone/train.py", line {line}, in step']
        return Graph((loss.grad_fn,))

    later = graph(None)
    learnt = Learnt()
    learnt.learn(graph(7))
    assert learnt.finder(later)(later.nodes[0]) == Place("/home/someone/train.py", 7)
    learnt.learn(graph(9))  # the same operation on another line
    assert learnt.finder(later)(later.nodes[0]) is None


def test_the_file_is_named_by_the_finding_that_speaks() -> None:
    cause = Finding("learning-rate-too-high", 402, "warning", "measured", "…")
    broken = Finding(
        "dead-units", 406, "warning", "measured", "…", evidence=("the batch is kept in b.safetensors", "more")
    )
    (kept,) = nearest_to_the_cause([broken, cause])
    assert kept.name == "learning-rate-too-high"
    assert kept.evidence == ("the batch is kept in b.safetensors",)
