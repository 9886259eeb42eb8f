"""Edits of statements: indentation, texts of several lines, statements that share a line, and what is not simple."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import libcst as cst
import pytest

from trueloop.doctor.source import blocks
from trueloop.doctor.source.edits import (
    after,
    at_head,
    before,
    called,
    moved,
    spelled,
    together,
    unwrapped,
    without,
    wrapped,
)
from trueloop.doctor.source.fixes import Edit, apply
from trueloop.doctor.source.program import Program
from trueloop.doctor.source.units import Unit

Made = Edit | list[Edit] | None


def program_of(text: str) -> Program:
    return Program(Unit("script.py", cst.parse_module(textwrap.dedent(text).lstrip("\n"))))


def call(program: Program, name: str) -> cst.CSTNode:
    """The call of a function by its name."""
    calls: Any = [node for node in blocks.walk(program.unit.tree) if blocks.kind(node) == "Call"]
    found: cst.CSTNode = next(node for node in calls if program.unit.text(node.func) == name)
    return found


def around(program: Program, name: str, kind: str) -> cst.CSTNode:
    node = call(program, name)
    return next(one for one in blocks.around(program.unit, node) if blocks.kind(one) == kind)


def edited(program: Program, made: Made) -> str:
    fix = together("…", made)
    assert fix is not None
    return apply(program.unit.tree.code, fix.edits)


LINES: list[tuple[str, Callable[[Program], Made], str]] = [
    ("for x in y:\n    a()\n", lambda p: after(p, call(p, "a"), "b()"), "for x in y:\n    a()\n    b()\n"),
    ("for x in y:\n\ta(\n\t\t1)\n", lambda p: before(p, call(p, "a"), "b()"), "for x in y:\n\tb()\n\ta(\n\t\t1)\n"),
    ("a(); c()\n", lambda p: after(p, call(p, "a"), "b()"), "a(); b(); c()\n"),
    ("a(); c()\n", lambda p: before(p, call(p, "c"), "b()"), "a(); b(); c()\n"),
    ("if x: a()\n", lambda p: after(p, call(p, "a"), "b()"), "if x: a(); b()\n"),
    ("if x: a()\n", lambda p: before(p, call(p, "a"), "b()"), "if x: b(); a()\n"),
    ("x = 1; a()  # why\n", lambda p: after(p, call(p, "a"), "b()"), "x = 1; a()  # why\nb()\n"),
    ("for x in a():\n    pass\n", lambda p: before(p, call(p, "a"), "b()"), "b()\nfor x in a():\n    pass\n"),
    ("x = f(lambda: a())\n", lambda p: before(p, call(p, "a"), "b()"), "b()\nx = f(lambda: a())\n"),
    (
        "for x in y:\n    a()\n    # the end\nz\n",
        lambda p: after(p, around(p, "a", "For"), "b()"),
        "for x in y:\n    a()\nb()\n    # the end\nz\n",
    ),
    (
        'def f():\n    """Does it."""\n    # so\n    a()\n',
        lambda p: at_head(p, around(p, "a", "FunctionDef"), "b()"),
        'def f():\n    """Does it."""\n    b()\n    # so\n    a()\n',
    ),
    (
        "def f(): a()\n",
        lambda p: at_head(p, around(p, "a", "FunctionDef"), "b()"),
        "def f(): b(); a()\n",
    ),
    ("if x:\n    a()\n", lambda p: without(p, call(p, "a")), "if x:\n    pass\n"),
    ("if x:\n    a(\n        1)\n    b()\n", lambda p: without(p, call(p, "a")), "if x:\n    b()\n"),
    ("a(); b()\n", lambda p: without(p, call(p, "a")), "pass; b()\n"),
    ("opt.step\na()\n", lambda p: called(p, call(p, "a"), "opt.step()"), "opt.step()\na()\n"),
]


@pytest.mark.parametrize(("text", "make", "expected"), LINES)
def test_lines(text: str, make: Callable[[Program], Made], expected: str) -> None:
    program = program_of(text)
    assert edited(program, make(program)) == expected


NOT_SIMPLE: list[tuple[str, Callable[[Program], Made]]] = [
    ("return_ = [a() for x in y]\n", lambda p: after(p, call(p, "a"), "b()")),
    ("def f():\n    return a()\n", lambda p: after(p, call(p, "a"), "b()")),
    ("if a():\n    pass\n", lambda p: after(p, call(p, "a"), "b()")),
    ("if x: a()\n", lambda p: after(p, call(p, "a"), "b()\nc()")),
    ("x = y if z else a()\n", lambda p: without(p, call(p, "a"))),
    ("if x:\n    opt.step\na()\n", lambda p: called(p, call(p, "a"), "opt.step()")),
]


@pytest.mark.parametrize(("text", "make"), NOT_SIMPLE)
def test_what_is_not_simple_has_no_edit(text: str, make: Callable[[Program], Made]) -> None:
    assert make(program_of(text)) is None


def test_what_stands_in_another_file_has_no_edit() -> None:
    program, other = program_of("a()\n"), program_of("a()\n")
    node = call(other, "a")
    assert [before(program, node, "b()"), after(program, node, "b()"), without(program, node)] == [None] * 3
    assert wrapped(program, node, node, "with x:") is None
    assert together("…", before(program, node, "b()"), []) is None


BLOCK = '''
for epoch in epochs:
    # validation
    for x in loader:
        text = f"""one
  two {x}
"""; print(text,
            x)

        if x:
            break  # enough
    done()
'''
INSIDE = '''
for epoch in epochs:
    # validation
    with torch.no_grad():
        for x in loader:
            text = f"""one
  two {x}
"""; print(text,
                x)

            if x:
                break  # enough
    done()
'''


def test_a_block_is_wrapped_and_unwrapped() -> None:
    program = program_of(BLOCK)
    loop = around(program, "print", "For")
    inside = edited(program, wrapped(program, loop, loop, "with torch.no_grad():"))
    assert inside == INSIDE.lstrip("\n")
    again = program_of(inside)
    assert edited(again, unwrapped(again, around(again, "print", "With"))) == BLOCK.lstrip("\n")


def test_a_comment_that_stands_further_out_keeps_its_block_wrapped() -> None:
    program = program_of("with x:\n    a()\n  # so\n    b()\n")
    assert unwrapped(program, around(program, "a", "With")) is None


def test_a_statement_moves_with_its_comment_and_the_other_ones_indentation() -> None:
    program = program_of("for x in y:\n    a(\n        1)  # why\n    if x:\n        b()\n")
    line, where = around(program, "a", "SimpleStatementLine"), around(program, "b", "SimpleStatementLine")
    expected = "for x in y:\n    if x:\n        b()\n        a(\n            1)  # why\n"
    assert edited(program, moved(program, line, where, behind=True)) == expected


def test_line_ends_stay_when_a_statement_moves() -> None:
    program = program_of("a()\r\nb()\r\nc()")
    line, where = around(program, "a", "SimpleStatementLine"), around(program, "c", "SimpleStatementLine")
    assert edited(program, moved(program, line, where, behind=True)) == "b()\r\nc()\r\na()"


@pytest.mark.parametrize(
    ("text", "name", "written", "added"),
    [
        ("import torch\n", "torch.no_grad", "torch.no_grad", ""),
        ("import torch as th\n", "torch.no_grad", "th.no_grad", ""),
        ("import torch.nn as nn\n", "torch.nn.ModuleList", "nn.ModuleList", ""),
        ("from torch import nn\nimport torch\n", "torch.nn.ModuleList", "nn.ModuleList", ""),
        ("from torch import no_grad\n", "torch.no_grad", "no_grad", ""),
        (
            '"""Doc."""\nfrom __future__ import annotations\nfrom torch.nn import Linear\n',
            "torch.no_grad",
            "torch.no_grad",
            "3",
        ),
        ("import torch.nn.functional as F\n", "torch.no_grad", "torch.no_grad", "1"),
        ("import torch.optim\n", "torch.no_grad", "torch.no_grad", ""),
        ("from __future__ import annotations\nx = 1\n", "torch.no_grad", "torch.no_grad", "2"),
        ('"""Doc."""\nx = 1\n', "torch.no_grad", "torch.no_grad", "2"),
    ],
)
def test_torch_by_the_name_that_it_has_here(text: str, name: str, written: str, added: str) -> None:
    found, edits = spelled(program_of(text), name)
    assert found == written
    assert [(str(edit.start[0]), edit.text) for edit in edits] == ([(added, "import torch\n")] if added else [])
