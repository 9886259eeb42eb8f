"""Whole scripts, by somebody who has not read the rules: mistakes are found by name, right scripts left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).parent / "cases"
EVERY = 30
"""In the ordinary suite; `make proof` runs them all."""

MISSED = {
    "dead-units--large-step-at-start": "it counts channels, and here each position of a channel is dead by itself",
    "no-distributed-sampler--ranks-with-fixed-seed": "the ranks are processes of the script's own, which are not heard",
    "no-distributed-sampler--two-gloo-ranks": "the ranks are processes of the script's own, which are not heard",
}


def scripts(folder: str) -> list[Any]:
    files = [path for path in sorted((CASES / folder).glob("*.py")) if folder == "clean" or expected(path)]
    return [
        pytest.param(
            path,
            id=path.stem,
            marks=[
                *([] if number % EVERY == 0 else [pytest.mark.slow]),
                *([pytest.mark.xfail(reason=MISSED[path.stem])] if path.stem in MISSED else []),
            ],
        )
        for number, path in enumerate(files)
    ]


def expected(path: Path) -> list[str]:
    rows = re.findall(r"^# expect: ([\w-]+) \[([\w, ]+)\]", path.read_text(encoding="utf-8"), re.M)
    return [name for name, ways in rows if "run" in ways]


def findings(path: Path, folder: Path) -> list[dict[str, Any]]:
    out = folder / "found.json"
    command = [sys.executable, "-m", "trueloop", "doctor", "--format", "json", "--output", str(out), str(path)]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["findings"]
    return found


@pytest.mark.parametrize("path", scripts("buggy"))
def test_the_mistake_is_found_by_name(path: Path, tmp_path: Path) -> None:
    accepted = re.findall(r"^# accept: ([\w-]+)", path.read_text(encoding="utf-8"), re.M)
    assert {expected(path)[0], *accepted} & {one["name"] for one in findings(path, tmp_path)}


@pytest.mark.parametrize("path", scripts("clean"))
def test_a_right_script_is_left_alone(path: Path, tmp_path: Path) -> None:
    assert [(one["name"], one["message"]) for one in findings(path, tmp_path) if one["level"] != "note"] == []
