"""Any Python passes through: nothing breaks, what is fixed parses and is at rest, and what is clean keeps its bytes."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueloop.cli.check import run
from trueloop.doctor import catalogue
from trueloop.doctor.source.fixes import Checked, fixed
from trueloop.doctor.source.look import look_into
from trueloop.doctor.source.parse import trouble
from trueloop.doctor.source.read import Source

SCRIPTS = [script for file in catalogue.files() for script in getattr(file, "READ_FIRES", {}).values()]
Mutation = Callable[[list[str], int, int], list[str]]
MUTATIONS: dict[str, Mutation] = {
    "drop": lambda lines, one, other: lines[:one] + lines[one + 1 :],
    "swap": lambda lines, one, other: [
        lines[other if number == one else one if number == other else number] for number in range(len(lines))
    ],
    "repeat": lambda lines, one, other: [*lines[:other], lines[one], *lines[other:]],
    "indent": lambda lines, one, other: [*lines[:one], f"    {lines[one]}", *lines[one + 1 :]],
    "dedent": lambda lines, one, other: [*lines[:one], lines[one].removeprefix("    "), *lines[one + 1 :]],
    "wrap": lambda lines, one, other: [*lines[:one], "if x:", *(f"    {line}" for line in lines[one:])],
}


def files_of(package: str) -> list[Path]:
    """All Python files of a package, or of the standard library, which holds ``json``."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parents[1 if package == "json" else 0]
    return sorted(file for file in folder.rglob("*.py") if "site-packages" not in file.relative_to(folder).parts)


def pass_through(files: list[Path], folder: Path) -> None:
    for number, file in enumerate(files):
        (folder / str(number)).mkdir()  # each by itself: next to one another they would import one another
        (folder / str(number) / file.name).write_bytes(file.read_bytes())
    copies = {folder / str(number) / file.name: file for number, file in enumerate(files)}
    command = [str(folder), "--no-cache", "--unsafe-fixes", "--format=json", f"--output={folder / 'told.json'}"]
    assert run(command) != 2, "the check broke on a file"
    told = json.loads((folder / "told.json").read_text())
    spoken = {finding["file"] for finding in [*told["findings"], *told["fixed"]]}
    for copy, file in copies.items():
        if str(copy) not in spoken:
            assert copy.read_bytes() == file.read_bytes(), file
    changed = [copy for copy, file in copies.items() if copy.read_bytes() != file.read_bytes()]
    assert all(trouble(copy.read_text()) is None for copy in changed)
    before = [copy.read_bytes() for copy in changed]
    run(command)
    assert [copy.read_bytes() for copy in changed] == before, "a second run changes nothing"


@pytest.mark.parametrize(("package", "number"), [("json", 40), ("torch", 12)])
def test_some_files(package: str, number: int, tmp_path: Path) -> None:
    pass_through(random.Random(0).sample(files_of(package), number), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["json", "torch"])
def test_all_files(package: str, tmp_path: Path) -> None:
    """Tests of Python's with broken files are among them."""
    pass_through(files_of(package), tmp_path)


def mutated(data: st.DataObject) -> str:
    """One of the rules' own scripts after some accidents."""
    lines = data.draw(st.sampled_from(SCRIPTS)).strip().splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        one, other = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        lines = data.draw(st.sampled_from(list(MUTATIONS.values())))(lines, one, other) or [""]
    return "\n".join(lines) + "\n"


def mend(text: str) -> str:
    def ask(source: Source) -> list[Checked]:
        looked = look_into(source)
        assert looked.failed is None
        return list(looked.found)

    source = Source("script.py", text)
    return fixed(source, ask, lambda text: trouble(text) is None, unsafe=True).source.text


@settings(max_examples=25, derandomize=True)
@given(st.data())
def test_scripts_after_accidents(data: st.DataObject) -> None:
    text = mutated(data)
    after = mend(text)
    assert trouble(after) is None or after == text
    assert mend(after) == after


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.data())
def test_many_scripts_after_accidents(data: st.DataObject) -> None:
    text = mutated(data)
    after = mend(text)
    assert trouble(after) is None or after == text
    assert mend(after) == after
