"""The reader: what a script's names stand for, what happens in it in which order, and what it leaves unknown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import libcst as cst
import pytest

from trueloop.doctor.source import events as read
from trueloop.doctor.source.program import Program, folders_of
from trueloop.doctor.source.program import read as reading
from trueloop.doctor.source.provenance import endings, trains
from trueloop.doctor.source.units import Unit
from trueloop.doctor.source.values import Tensor
from trueloop.doctor.source.ways import Run, paths

HEAD = """
import torch
from torch import nn
import torch.nn.functional as F
"""


def program(text: str, *, path: str = "script.py") -> Program:
    unit = Unit(path, cst.parse_module(HEAD + textwrap.dedent(text)), folders_of(path, None))
    return reading(unit, strict=True)


def top(text: str) -> Run:
    return program(text).runs[0]


def names(run: Run, *kinds: type[object]) -> list[str]:
    wanted = kinds or (read.Zeroed, read.Backward, read.Stepped)
    return [type(event).__name__ for event in run.events if isinstance(event, wanted)]


def test_a_loop_is_gone_through_twice_and_each_event_knows_its_turn() -> None:
    run = top("""
        for x in data:
            opt.zero_grad()
            loss.backward()
    """)
    assert names(run) == ["Zeroed", "Backward", "Zeroed", "Backward"]
    assert [event.at.loops[0].number for event in run.of(read.Backward)] == [0, 1]


def test_functions_are_gone_through_where_they_are_called() -> None:
    run = top("""
        def update(optimizer, loss):
            loss.backward()
            optimizer.step()
        net = nn.Linear(2, 1)
        update(torch.optim.SGD(net.parameters(), lr=0.1), net(torch.ones(2)).sum())
    """)
    assert names(run) == ["Backward", "Stepped"]
    step, backward = next(run.of(read.Stepped)), next(run.of(read.Backward))
    assert trains(step.target, backward.loss) is True


def test_what_nothing_calls_is_entered_by_itself() -> None:
    found = program("""
        class Trainer:
            def __init__(self, model):
                self.opt = torch.optim.Adam(model.parameters())
            def inner(self, loss):
                loss.backward()
                self.opt.step()
            def fit(self, losses):
                for loss in losses:
                    self.inner(loss)
    """)
    entered = [run.entry.name for run in found.runs if run.entry is not None]
    assert entered == ["fit"], "inner is called by fit, and needs no entry of its own"


def test_forward_is_gone_through_and_the_last_operation_is_known() -> None:
    run = top("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
                self.act = nn.Softmax(1)
            def forward(self, x):
                return self.act(self.body(x)).view(-1)
        F.cross_entropy(Net()(torch.randn(2, 4)), y)
    """)
    (end,) = endings(next(run.of(read.LossCalled)).input)
    assert isinstance(end, Tensor)
    assert end.op == "softmax"


@pytest.mark.parametrize(
    ("body", "mode"),
    [
        ("net.eval()", False),
        ("net.train(False)", False),
        ("net.eval()\nnet.train()", True),
        ("if flag:\n    net.eval()", None),
        ("if flag:\n    net.eval()\nelse:\n    net.train(False)", False),
        ("for x in data:\n    if x:\n        continue\n    net.eval()", None),
    ],
)
def test_the_mode_at_a_call_is_that_of_every_way_there(body: str, mode: bool | None) -> None:
    run = top(f"net = nn.Dropout()\n{body}\nnet(torch.ones(2))\n")
    assert list(run.of(read.Called))[-1].training is mode


@pytest.mark.parametrize(
    ("text", "grad"),
    [
        ("with torch.no_grad():\n    net(x)", False),
        ("with torch.set_grad_enabled(flag):\n    net(x)", None),
        ("@torch.inference_mode()\ndef f():\n    return net(x)\nf()", False),
        ("def f():\n    with torch.no_grad():\n        return 1\nf()\nnet(x)", True),
        ("torch.set_grad_enabled(False)\nnet(x)", False),
    ],
)
def test_whether_a_graph_is_recorded(text: str, grad: bool | None) -> None:
    assert next(top(f"net = nn.Linear(2, 1)\n{text}\n").of(read.Called)).grad is grad


def test_a_condition_is_answered_in_one_way_on_a_path() -> None:
    run = top("""
        for i, x in enumerate(data):
            if amp:
                a.backward()
            else:
                b.backward()
            if not amp:
                opt.step()
    """)
    found = {tuple(type(event).__name__ for event in way) for way in paths(run, read.Backward, read.Stepped)}
    assert found == {("Backward", "Backward"), ("Backward", "Stepped", "Backward", "Stepped")}


def test_nothing_is_invented() -> None:
    run = top("""
        from somewhere import make, Thing
        model = make()
        thing = Thing(model)
        out = thing.run(model(x))
        out.backward()
    """)
    (backward,) = run.of(read.Backward)
    assert not isinstance(backward.loss, Tensor)
    assert [event.name for event in run.of(read.Escaped)] == [
        "somewhere.make",
        "somewhere.Thing",
        "somewhere.make",
        "run",
    ]


def test_a_module_of_the_same_program_is_read(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.fc = nn.Linear(2, 2)\n    def forward(self, x):\n        return self.fc(x).softmax(1)\n"
    )
    text = "from models import Net\nF.cross_entropy(Net()(torch.ones(1, 2)), y)\n"
    found = program(text, path=str(tmp_path / "train.py"))
    (end,) = endings(next(found.runs[0].of(read.LossCalled)).input)
    assert isinstance(end, Tensor)
    assert end.op == "softmax"
    assert found.place(end).file.endswith("models.py")


def test_the_loss_of_one_part_does_not_train_the_other() -> None:
    run = top("""
        a, b = nn.Linear(2, 1), nn.Linear(2, 1)
        oa, ob = torch.optim.SGD(a.parameters()), torch.optim.SGD([{"params": b.parameters()}])
        for x in torch.randn(3, 2):
            a(x).sum().backward()
            oa.step()
            b(a(x).detach()).sum().backward()
            ob.step()
    """)
    first, second = list(run.of(read.Backward))[:2]
    one, other = list(run.of(read.Stepped))[:2]
    answers = [trains(step.target, backward.loss) for step in (one, other) for backward in (first, second)]
    assert answers == [True, False, False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("while False:\n    opt.step()\nelse:\n    opt.zero_grad()", ["Zeroed"]),
        ("for x in data:\n    if x:\n        break\nelse:\n    raise ValueError\nopt.step()", ["Stepped"]),
        ("for x in data:\n    opt.zero_grad()\n    break\nelse:\n    opt.step()", ["Zeroed"]),
        ("for x in data:\n    opt.zero_grad()\nelse:\n    opt.step()", ["Zeroed", "Zeroed", "Stepped"]),
        (
            "for x in data:\n    for y in x:\n        if y: break\n    else:\n        continue\n    opt.step()",
            ["Stepped", "Stepped"],
        ),
        ("try:\n    opt.zero_grad()\nexcept* OSError:\n    pass\nelse:\n    opt.step()", ["Zeroed", "Stepped"]),
    ],
)
def test_what_stands_under_else(text: str, expected: list[str]) -> None:
    assert names(top(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "def update(*, early=True):\n    BOTH\nupdate(**given)",
        "def update(loss, early=True):\n    BOTH\nupdate(*given)",
    ],
)
def test_a_default_is_taken_only_where_nothing_else_may_be_given(text: str) -> None:
    both = "if early:\n        opt.step()\n    else:\n        opt.zero_grad()"
    assert names(top(text.replace("BOTH", both))) == ["Stepped", "Zeroed"]


def test_what_is_reversed_ends_with_its_first() -> None:
    run = top("net = nn.Sequential(*reversed([nn.Softmax(1), nn.Linear(2, 2)]))\nF.cross_entropy(net(x), y)\n")
    (end,) = endings(next(run.of(read.LossCalled)).input)
    assert isinstance(end, Tensor)
    assert end.op == "softmax"


def test_a_whole_number_turned_bit_by_bit() -> None:
    assert names(top("if ~1 == -2:\n    opt.step()\nelse:\n    opt.zero_grad()\n")) == ["Stepped"]


def corpus() -> Iterator[Path]:
    """Files of the standard library and of torch's: not one that was written for this."""
    import torch  # only to know where it lies

    stdlib = Path(textwrap.__file__).parent
    yield from sorted(stdlib.glob("a*.py"))[:12]
    yield from sorted((Path(torch.__file__).parent / "optim").glob("*.py"))[:6]
    yield from sorted((Path(torch.__file__).parent / "nn" / "utils").glob("*.py"))[:6]


@pytest.mark.parametrize("file", list(corpus()), ids=lambda file: file.name)
def test_any_file_is_read_without_an_error_of_ours(file: Path) -> None:
    reading(Unit(str(file), cst.parse_module(file.read_text())), strict=True)


def test_a_file_that_is_too_much_is_left_without_an_answer() -> None:
    calls = "\n".join(f"    f{n - 1}() or f{n - 1}()" for n in range(1, 2))
    text = "def f0():\n    pass\n" + "".join(f"def f{n}():\n    f{n - 1}()\n    f{n - 1}()\n" for n in range(1, 40))
    run = top(text + "f39()\nloss.backward()\n" + f"if 0:\n{calls}\n")
    assert not run.complete
