"""The scripts under diagnosis: what their headers say, and where a tool that must be told finds model and optimizer."""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One script of the folder of cases."""

    path: Path
    names: frozenset[str]
    """The rules of which one must be named; empty for a clean script."""
    ways: frozenset[str]
    """How the mistake can be seen: ``run``, ``source``."""

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"

    @property
    def buggy(self) -> bool:
        return bool(self.names)


@dataclass(frozen=True)
class Place:
    """Where a script makes an optimizer."""

    line: int
    """The last line of the statement, counted from 1."""
    indent: str
    model: str
    optimizer: str


def read_cases(folder: Path) -> list[Case]:
    """All cases in an order by chance that is always the same, so that any first part of them is a fair sample."""
    cases = [_read(path) for kind in ("buggy", "clean") for path in sorted((folder / kind).glob("*.py"))]
    return sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).digest())


def places(source: str) -> list[Place]:
    """Where optimizers are made and of which model; the first model made, where the call does not say it.

    Example:
        >>> places("net = Net()\\nopt = torch.optim.SGD(net.parameters(), lr=0.1)")
        [Place(line=2, indent='', model='net', optimizer='opt')]
    """
    found = []
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        made = ast.unparse(node.value.func).rpartition(".")[2]
        if made not in {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "LBFGS"} or not node.value.args:
            continue
        models = [
            ast.unparse(part.func.value)
            for part in ast.walk(node.value.args[0])
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "parameters"
        ] or _modules(source)
        if models:
            first = lines[node.lineno - 1]
            indent = first[: len(first) - len(first.lstrip())]
            found.append(Place(node.end_lineno or node.lineno, indent, models[0], ast.unparse(node.targets[0])))
    return found


def _read(path: Path) -> Case:
    text = path.read_text()
    row = re.search(r"^# expect: ([\w-]+) \[([\w, ]+)\]", text, re.M)
    if row is None:
        return Case(path, frozenset(), frozenset())
    accepted = re.findall(r"^# accept: ([\w-]+)", text, re.M)
    return Case(path, frozenset({row[1], *accepted}), frozenset(re.split(r",\s*", row[2])))


def _modules(source: str) -> list[str]:
    return re.findall(r"^\s*(\w+) = nn\.Sequential\(", source, re.M)
