"""The public names, and that the door opens without waiting for torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trueloop

SRC = Path(trueloop.__file__).parents[1]


@pytest.mark.parametrize("name", trueloop.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(trueloop, name) is not None


def test_dir_lists_the_public_names() -> None:
    assert set(trueloop.__all__) <= set(dir(trueloop))


def test_a_name_that_is_not_there_is_an_attribute_error_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Trainr'"):
        _ = trueloop.Trainr  # type: ignore[attr-defined]
    report = run("-c", "import trueloop; trueloop.Trainr")
    assert "Did you mean: 'Trainer'?" in report.stderr


def test_split_is_the_function_whatever_was_imported_before() -> None:
    code = "import trueloop.data.split, trueloop; assert callable(trueloop.split), trueloop.split"
    assert run("-c", code).returncode == 0


def test_import_does_not_import_torch() -> None:
    assert run("-c", "import sys, trueloop; assert 'torch' not in sys.modules").returncode == 0


@pytest.mark.parametrize(
    "room", ["events", "errors", "schedules", "observers", "report.confusion", "cli.main", "cli.find"]
)
def test_light_rooms_do_not_import_torch(room: str) -> None:
    report = run("-c", f"import sys, trueloop.{room}; assert 'torch' not in sys.modules")
    assert report.returncode == 0, report.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["train", "--help"], ["evaluate", "--help"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    report = run("-X", "importtime", "-m", "trueloop.cli.main", *arguments)
    assert report.returncode == 0, report.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in report.stderr.splitlines()}
    assert "trueloop.cli" in imported
    assert "torch" not in imported


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
