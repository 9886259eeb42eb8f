"""A script that was read: what happens in it, in order, and the questions that rules ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import libcst as cst

from trueloop.doctor.findings import Certainty, Finding, Level, Place
from trueloop.doctor.rule import Rule, about_of
from trueloop.doctor.source import frameworks
from trueloop.doctor.source.calls import inline, instantiate, invoke
from trueloop.doctor.source.expressions import evaluate
from trueloop.doctor.source.machine import Frame, Machine, OutOfFuel
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.relevance import telling_functions
from trueloop.doctor.source.statements import perform
from trueloop.doctor.source.units import Unit
from trueloop.doctor.source.values import Class, Constant, Function, Object, Scope, Unknown, Value
from trueloop.doctor.source.ways import Run

FUEL = 40  # steps for each line, and at least
LEAST = 20_000
ONE_RUN = 8_000  # of them for one way into the file; a training script of a hundred lines takes a thousand
EACH_LINE = 20  # … or so many for each line, if that is more: a long file may train many times


@dataclass
class Program:
    """A file that was read.

    Args:
        unit: the file.
        runs: its top level first.
        left_out: functions that could not be read; nothing is said of them.
        neighbours: the other files, by path, in which something of note was found.
    """

    unit: Unit
    runs: list[Run] = field(default_factory=list)
    left_out: int = 0
    neighbours: dict[str, Unit] = field(default_factory=dict)

    @cached_property
    def lines(self) -> list[str]:
        """The file's lines."""
        return self.unit.lines

    def text_around(self, event: Any, above: int) -> str:
        """The line of an event and those above it, and the text of the function that it is in, if that is short."""
        line = event.at.unit.span(event.node).start.line
        return "\n".join(event.at.unit.lines[max(0, line - 1 - above) : line])

    def place(self, event: Any) -> Place:
        """The line of an event, or of anything with a ``node`` and an ``at``; a place is what it is."""
        return event if isinstance(event, Place) else self.line(event.node, event.at.unit)

    def line(self, node: cst.CSTNode, unit: Unit | None = None) -> Place:
        """A node's line."""
        unit = unit or self.unit
        if unit is not self.unit:
            self.neighbours[unit.path] = unit
        return Place(unit.path, unit.span(node).start.line)

    def finding(
        self,
        rule: type[Rule],
        message: str,
        *evidence: str,
        at: Any,
        related: Iterable[tuple[Any, str]] = (),
        level: Level | None = None,
        certainty: Certainty | None = None,
        help: str = "",
    ) -> Finding:
        """A finding of a rule.

        Args:
            rule: its class.
            message: what is wrong here.
            evidence: what was read.
            at: the event that it is about.
            related: other events, each with a word on what it is.
            level: if another than the rule's.
            certainty: the same.
            help: the same.
        """
        about = about_of(rule)
        return Finding(
            rule.name,
            rule.code,
            level or rule.level,
            certainty or rule.certainty,
            message,
            evidence,
            about.get("Why it matters", ""),
            help or about.get("Fix", ""),
            self.place(at),
            related=tuple((self.place(other), label) for other, label in related),
        )


def read(unit: Unit, *, strict: bool = False) -> Program:
    """Reads a file as it would run: first its top level, then what nothing has called.

    Args:
        unit: the file.
        strict: raises the reader's own errors, for its tests.
    """
    text = unit.code
    m = Machine(unit, evaluate, perform, invoke, ONE_RUN, strict)
    tank = _Tank(max(LEAST, FUEL * text.count("\n")))
    program = Program(unit)
    scope = Scope({"__name__": Constant("__main__"), "__file__": Constant(unit.path)})
    m.frames.append(Frame(scope, unit))
    _run(m, program, tank, None, lambda: _top(m))
    telling = telling_functions(text)
    for again in (False, True):  # first those that nothing in the file calls, then those that are left all the same
        for cls in [one for one in m.classes if one.unit is unit]:
            _enter_class(m, program, tank, cls, text, telling, again)
        for function in [one for one in m.functions if one.unit is unit and one.name in telling]:
            if id(function.node) not in m.entered and (again or text.count(f"{function.name}(") < 2):
                _run(m, program, tank, function, partial(inline, m, function, None, (), _open(function), function.node))
    program.left_out = m.left_out
    return program


@dataclass
class _Tank:
    """The budget of a file."""

    left: int


def _top(m: Machine) -> None:
    for statement in m.unit.tree.body:
        try:
            if perform(m, (statement,)) is not None:
                break
        except OutOfFuel:
            raise
        except Exception:
            if m.strict:
                raise
            m.left_out += 1


def _enter_class(
    m: Machine, program: Program, tank: _Tank, cls: Class, text: str, telling: set[str], again: bool
) -> None:
    """The methods of a class that nothing calls, on the object that was made of it, or on one that is made for them."""
    methods = [one for one in cls.attrs.values() if isinstance(one, Function) and one.name != "__init__"]
    methods = [one for one in methods if one.name in telling and (again or text.count(f".{one.name}(") < 1)]
    left = [one for one in methods if id(one.node) not in m.entered]
    is_made = id(cls.node) in m.objects
    if not left and (is_made or not again):
        return
    mark = len(m.trail)
    made: Value | None = m.objects.get(id(cls.node))
    if made is None:
        found: list[Value] = []
        _run(m, program, tank, None, lambda: found.append(instantiate(m, cls, (), {}, cls.node)), undo=False)
        made = found[0] if found else None
    if isinstance(made, Object):
        for one in parts(made):  # whoever calls its methods may have set the mode
            m.write(one.attrs, "training", None)
        if left and frameworks.trains(made, m.entered):
            _run(m, program, tank, left[0], partial(frameworks.alone, m, made, cls.node))
        for method in left:
            if id(method.node) not in m.entered:
                _run(m, program, tank, method, partial(inline, m, method, made, (), _open(method), method.node))
    m.undo(mark)


def _open(function: Function) -> dict[str, Value]:
    """The switches of a function that nothing in the file calls: whoever calls it may set them either way."""
    return {
        name: Unknown(name)
        for name, value in function.defaults.items()
        if isinstance(value, Constant) and (value.value is None or isinstance(value.value, bool))
    }


def _run(
    m: Machine,
    program: Program,
    tank: _Tank,
    entry: Function | None,
    go: Callable[[], object],
    *,
    undo: bool = True,
) -> None:
    m.events = []
    mark = len(m.trail)
    first = not program.runs
    m.loops, m.calls, m.branches, m.ways, m.inside, m.silent = (), (), (), [], 0, 0
    m.state["grad"] = True
    given = m.fuel = min(max(ONE_RUN, EACH_LINE * len(program.unit.lines)), tank.left)
    complete = False
    try:
        go()
        complete = True
    except OutOfFuel:
        pass
    tank.left -= given - max(m.fuel, 0)
    if m.events or first:
        program.runs.append(Run(entry, m.events, complete))
    del m.frames[1:]
    if undo and not first:
        m.undo(mark)


def folders_of(path: str, root: Path | None) -> tuple[Path, ...]:
    """Where the modules that a file imports may lie: next to it, up to the root."""
    try:
        here = Path(path).resolve().parent
    except OSError:
        return ()
    found = [here]
    if root is not None and here.is_relative_to(root.resolve()):
        for folder in here.parents:
            if not folder.is_relative_to(root.resolve()):
                break
            found.append(folder)
    return tuple(found)
