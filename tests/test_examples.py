"""Each example is short, runs as it stands, and does what it says."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LINES_ON_A_SCREEN = 40

Names = dict[str, Any]


def numbers(pattern: str, output: str) -> list[float]:
    """The numbers that the pattern's one group finds, in order."""
    return [float(number) for number in re.findall(pattern, output)]


def accumulate(names: Names, output: str) -> None:
    assert names["apart"] < 1e-12
    assert names["result"].steps == names["result_of_parts"].steps == 40
    assert names["result"].loss == pytest.approx(names["result_of_parts"].loss, abs=1e-12)


def early_stopping(names: Names, output: str) -> None:
    losses, result = names["losses"], names["result"]
    assert result.steps == 4 * len(losses)  # 60 samples in batches of 16, an evaluation an epoch
    assert len(losses) < 200
    assert "has not improved" in result.reason
    assert min(losses) < losses[0]
    assert min(losses) - 1e-3 <= min(losses[-5:])  # the five evaluations that it waited for


def from_numpy(names: Names, output: str) -> None:
    assert names["loss"] == pytest.approx(names["by_hand"], rel=1e-5)
    assert names["loss"] < 0.05 * names["test"][1].var()
    assert abs(names["train"][0].mean()) < 1e-5
    assert abs(names["test"][0].mean()) > 1e-5  # by the statistics of the training part


def gan(names: Names, output: str) -> None:
    (before,) = numbers(r"before: mean (\S+),", output)
    (after,) = numbers(r"after: mean (\S+),", output)
    assert abs(after - 3) < 0.5 < abs(before - 3)
    assert names["trainer"].step == 20 * 64


def own_dataset(names: Names, output: str) -> None:
    same, loss = names["main"]()
    assert same
    assert loss < 0.1


def own_loss(names: Names, output: str) -> None:
    assert names["apart"] < 1e-12
    assert names["loss"] == pytest.approx(names["loss_of_parts"], abs=1e-12)


def own_metric(names: Names, output: str) -> None:
    metrics = names["trainer"].evaluate(names["val"])
    points, labels = names["val"]
    logits = names["trainer"].predict(points)
    assert metrics["worst_class"] == names["worst_class"](logits, labels) > 0.5
    assert metrics["confidence"] == pytest.approx(float(logits.softmax(1).amax(1).mean()), abs=1e-6)
    assert "worst_class" in output


def own_observer(names: Names, output: str) -> None:
    result = names["result"]
    assert "is good enough" in result.reason
    assert result.metrics["loss"] < 0.1
    assert len(names["curve"].losses) == result.steps < 60 * 32
    losses = numbers(r"loss (\S+) over", output)
    assert losses == sorted(losses, reverse=True) != []


def three_ways(names: Names, output: str) -> None:
    assert names["same"]
    assert names["result"].steps == 35
    losses = numbers(r"loss (\S+)", output)
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 5


def transfer(names: Names, output: str) -> None:
    assert names["untouched"]
    assert not names["stem"].training
    assert names["head"].training
    assert names["result"].metrics["accuracy"] > 0.85
    head, rest = names["head"][1].weight, names["body"][0].weight
    groups = names["trainer"].setup.optimizers[""].param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert rates[id(head)] == pytest.approx(10 * rates[id(rest)])


def truncated_bptt(names: Names, output: str) -> None:
    assert names["losses"][-1] < 0.05 < 0.3 < names["losses"][0]


CHECKS: dict[str, Callable[[Names, str], None]] = {
    check.__name__: check
    for check in (
        accumulate,
        early_stopping,
        from_numpy,
        gan,
        own_dataset,
        own_loss,
        own_metric,
        own_observer,
        three_ways,
        transfer,
        truncated_bptt,
    )
}


def test_every_example_is_checked() -> None:
    assert sorted(CHECKS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", CHECKS)
def test_example(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "own_dataset":  # its workers may have to import it (Python 3.14 forks no more)
        monkeypatch.syspath_prepend(str(EXAMPLES))
        names = vars(importlib.import_module(name))
    else:
        names = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    CHECKS[name](names, capsys.readouterr().out)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_fits_on_a_screen_and_says_in_one_line_what_it_shows(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring is not None
    assert "\n" not in docstring
    assert len(text.splitlines()) <= LINES_ON_A_SCREEN
