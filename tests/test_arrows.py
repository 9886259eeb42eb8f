"""Imports point one way (docs/design.md, "The rooms"): this table holds the arrows.

A room is a module or package right under ``trueloop``. An arrow ``loop → step`` says that loop may import step; whoever
adds a room adds a row. What is imported under ``if TYPE_CHECKING`` does not count: nothing of it happens when a program
runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import trueloop

FRONT_DOOR = ""
"""``import trueloop as tl``"""

STEP = {"errors", "events", "objective", "finite", "schedules", "optim", "data"}
LOOP = STEP | {"step", "evaluate", "plan", "preflight"}
SETUP = LOOP | {"cadence", "checks", "precision", "memory", "checkpoint"}

MAY_IMPORT: dict[str, set[str]] = {
    # these import nothing of ours
    "errors": set(),
    "events": set(),
    "schedules": set(),
    "plan": set(),
    "memory": set(),
    # what a step is made of
    "checks": {"errors"},
    "data": {"errors"},
    "optim": {"errors", "checks"},
    "precision": {"errors"},
    "seeds": {"errors"},
    "objective": {"errors", "data"},
    "finite": {"errors", "objective", "data"},
    "cadence": {"errors", "schedules"},
    "tally": {"errors", "objective", "data"},
    "evaluate": {"errors", "events", "objective", "data", "preflight", "tally"},
    "preflight": {"errors", "objective", "finite", "data", "optim"},
    "step": STEP,  # never loop
    "loop": LOOP,  # never observers: they meet only in watch()
    "parallel": STEP | {"step", "loop", "tally", "checkpoint", "checks"},  # around them; none knows of processes
    "setup": SETUP | {"parallel", "tally"},
    "planning": SETUP | {"setup", "consult", "parallel"},
    "own_loop": SETUP | {"setup", "loop", "parallel"},
    # who watches
    "observers": {"errors", "events"},
    "result": {"errors", "events"},
    "report": {"errors"},
    "checkpoint": {"errors", "events", "data", "step", "optim"},
    "testing": {"errors", "events", "plan", "checkpoint"},
    "hindsight": {"errors", "events", "doctor"},
    "consult": {"events", "doctor", "hindsight"},
    "doctor": {"errors"},  # never the trainer: it listens to torch
    # who puts it together
    "verify_resume": {"errors", "events", "objective", "data", "seeds", "checkpoint"},
    "examine": LOOP | {"loop", "precision", "seeds", "checkpoint", "doctor", "verify_resume"},
    "state": SETUP | {"setup", "parallel", "planning", "loop", "own_loop", "checkpoint", "observers"},
    "inference": SETUP | {"setup", "state", "parallel", "tally"},
    "session": {"errors", "setup", "state", "inference", "loop", "own_loop", "checkpoint", "observers", "parallel"},
    "run": SETUP | {"setup", "state", "inference", "planning", "loop", "parallel"},
    "trainer": {"errors", "events", "objective", "step", "data", "optim", "checks", "checkpoint"}
    | {"setup", "state", "inference", "session", "run", "planning", "plan", "loop", "evaluate", "seeds", "consult"}
    | {"parallel", "observers", "result", "verify_resume", "examine"},
    "recipe": {"trainer", "result", "loop", "checkpoint"},
    "recipes": {FRONT_DOOR, "data", "errors"},  # written as a user's are
    "cli": {"*"},  # nobody imports cli, but for `python -m trueloop`
    "__main__": {"cli"},
}

NO_TORCH = {"report"}
"""Not even in a function."""

NO_TORCH_AT_FIRST = {"__init__", "errors", "events", "schedules", "observers", "cli", "plan", "result"}
"""In functions only: these must be there in no time."""

HOUSE = Path(trueloop.__file__).parent


class Import(NamedTuple):
    """One import: in which file and line, of what, and whether it waits for a function to be called."""

    where: str
    room: str
    module: str
    late: bool


def imports(file: Path) -> Iterator[Import]:
    relative = file.relative_to(HOUSE)
    room = relative.parts[0].removesuffix(".py")
    for node, late in walk(ast.parse(file.read_text(encoding="utf-8")), late=False):
        where = f"{relative}:{node.lineno}"
        if isinstance(node, ast.Import):
            yield from (Import(where, room, alias.name, late) for alias in node.names)
        elif node.module in ("trueloop", "trueloop.data"):  # from trueloop import schedules
            yield from (Import(where, room, f"{node.module}.{alias.name}", late) for alias in node.names)
        else:
            yield Import(where, room, node.module or "", late)


def walk(node: ast.AST, *, late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, late
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from walk(other, late=late)
        else:
            yield from walk(child, late=late or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


ALL = [found for file in sorted(HOUSE.rglob("*.py")) for found in imports(file)]
ROOMS = sorted({path.stem for path in HOUSE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))})


def test_every_room_has_its_row_and_every_row_its_room() -> None:
    assert set(MAY_IMPORT) | {"__init__"} >= set(ROOMS), "a new room: add its arrows to MAY_IMPORT"
    assert set(MAY_IMPORT) <= set(ROOMS), "a room is gone: remove its row"


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "__init__"])
def test_arrows(room: str) -> None:
    wrong = []
    for found in ALL:
        top, _, rest = found.module.partition(".")
        other = rest.partition(".")[0]
        if found.room != room or top != "trueloop" or other in (room, "__version__"):
            continue
        allowed = MAY_IMPORT.get(room, set())
        if other not in allowed and not ("*" in allowed and other not in ("cli", "__main__")):
            wrong.append(f"{found.where} imports {found.module}")
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_cli() -> None:
    assert not [
        found.where
        for found in ALL
        if found.module.startswith("trueloop.cli") and found.room not in ("cli", "__main__")
    ]


def test_torch_is_imported_only_where_it_may_be() -> None:
    wrong = [
        found.where
        for found in ALL
        if found.module.partition(".")[0] in ("torch", "torchmetrics")
        and (found.room in NO_TORCH or (found.room in NO_TORCH_AT_FIRST and not found.late))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_arrows_have_no_circle() -> None:
    order: list[str] = []
    left = {room: {other for other in others if other not in ("*", FRONT_DOOR)} for room, others in MAY_IMPORT.items()}
    while left:
        free = sorted(room for room, others in left.items() if others <= {*order, room})
        assert free, f"a circle among {', '.join(sorted(left))}"
        order += free
        for room in free:
            del left[room]
