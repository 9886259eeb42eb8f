"""Fixes mend: what they leave is Python, comes to rest, has not that mistake, no new one, and the doctor finds none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import libcst as cst
import pytest

from trueloop.doctor import catalogue
from trueloop.doctor.findings import LEVELS
from trueloop.doctor.rehearsal import PREAMBLE, rehearse
from trueloop.doctor.source.checks import found_in
from trueloop.doctor.source.fixes import Checked, Fixed, fixed
from trueloop.doctor.source.judge import judged
from trueloop.doctor.source.parse import trouble
from trueloop.doctor.source.program import folders_of
from trueloop.doctor.source.read import Source
from trueloop.doctor.source.units import Unit

EVERY = 10
"""Of the scripts that are run when they are mended, so many in the ordinary suite; `make proof` takes them all."""

SAMPLE = {"missing-zero-grad--once-per-epoch", "evaluation-builds-graph--accuracy-function"}
"""Of the whole ones, by name."""

CASES = sorted((Path(__file__).parents[1] / "cases" / "buggy").glob("*.py"))
FILES = [file for file in catalogue.files() if hasattr(file, "in_source")]


def title(file: ModuleType, name: str) -> str:
    return f"{file.__name__.rpartition('.')[2]}-{name.replace(' ', '-')}"


def ask(source: Source) -> list[Checked]:
    """As the command does: of two findings with one cause, the one nearest to it."""
    found = found_in(Unit(source.path, cst.parse_module(source.text), folders_of(source.path, None)), strict=True)
    return judged([(source, tuple(found))], None, whole=False).left


def parses(text: str) -> bool:
    return trouble(text) is None


def mended(source: Source) -> tuple[Fixed, set[str]]:
    """The source after all its fixes, and the rules that have one for all that they found."""
    found = ask(source)
    done = fixed(source, ask, parses, unsafe=True, found=found)
    assert bool(done.applied) is any(one.fix is not None for one in found), "the fixes do not come to rest"
    return done, names(found) - {one.finding.name for one in found if one.fix is None}


def names(found: list[Checked], level: str = "note") -> set[str]:
    return {one.finding.name for one in found if LEVELS.index(one.finding.level) >= LEVELS.index(level)}


READ = [
    pytest.param(textwrap.dedent(file.READ_FIRES[name]), id=title(file, name))
    for file in FILES
    for name in file.READ_FIRES
]
FIRES = [(title(file, name), file.FIRES[name]) for file in FILES for name in getattr(file, "FIRES", ())]
RUN = [(f"{name}-run", PREAMBLE + textwrap.dedent(text)) for name, text in FIRES]
WHOLE = [(path.stem, path.read_text(encoding="utf-8")) for path in CASES]
OTHERS = [
    pytest.param(text, id=name, marks=() if number % EVERY == 0 else pytest.mark.slow)
    for number, (name, text) in enumerate([*RUN, *WHOLE])
]


@pytest.mark.parametrize("text", [*READ, *OTHERS])
def test_what_fixes_leave(text: str) -> None:
    source = Source("script.py", text)
    done, gone = mended(source)
    assert parses(done.source.text)
    assert names(done.left).isdisjoint(gone)
    if done.applied:
        assert names(done.left, "warning") <= names(ask(source)), "a fix makes another mistake"
        again = fixed(done.source, ask, parses, unsafe=True)
        assert (again.source.text, again.applied) == (done.source.text, [])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=name, marks=() if number % EVERY == 0 else pytest.mark.slow)
        for number, (name, text) in enumerate(FIRES)
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_small_script_that_was_mended_is_right_when_it_runs(text: str) -> None:
    done, gone = mended(Source("script.py", PREAMBLE + textwrap.dedent(text)))
    if not gone:
        return
    trace = rehearse(done.source.text)
    assert trace.error is None
    assert gone.isdisjoint(finding.name for finding in trace.findings)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=() if path.stem in SAMPLE else pytest.mark.slow) for path in CASES],
)
def test_a_whole_script_that_was_mended_is_right_when_it_runs(path: Path, tmp_path: Path) -> None:
    done, gone = mended(Source(str(path), path.read_text(encoding="utf-8")))
    if not gone:
        return
    script, out = tmp_path / path.name, tmp_path / "found.json"
    script.write_text(done.source.text, encoding="utf-8")
    command = [sys.executable, "-m", "trueloop", "doctor", "--format", "json", "--output", str(out), str(script)]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    told: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert told["script"]["error"] is None
    assert gone.isdisjoint(finding["name"] for finding in told["findings"])
