from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trueloop
from trueloop.cli.main import VERBS
from trueloop.errors import UnknownNameError

Command = Callable[..., Any]


def test_help_lists_every_verb_with_one_line(command: Command) -> None:
    ended = command("--help")
    assert ended.code == 0
    for verb, what in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(what)}$", ended.out, re.MULTILINE)
    assert command().out == ended.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_help(command: Command, verb: str) -> None:
    ended = command(verb, "--help")
    assert ended.code == 0
    assert f"usage: trueloop {verb}" in ended.out


def test_an_unknown_verb_gets_the_nearest(command: Command) -> None:
    ended = command("trian")
    assert ended.code == 2
    assert ended.out == ""
    assert "unknown verb 'trian'; did you mean 'train'?" in ended.error


def test_an_error_is_one_paragraph_without_a_traceback(command: Command) -> None:
    ended = command("evaluate", "nowhere")
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err


def test_a_traceback_is_there_for_whoever_asks(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUELOOP_TRACEBACK", "1")
    with pytest.raises(UnknownNameError):
        command("trian")


def test_an_error_is_red_at_a_terminal() -> None:
    environment = os.environ | {
        "PYTHONPATH": str(Path(trueloop.__file__).parents[1]),
        "FORCE_COLOR": "1",
        "TERM": "xterm",
    }
    code = "import sys; from trueloop.cli.main import main; sys.exit(main(['trian']))"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert ended.returncode == 2
    assert b"\x1b[1;31merror: " in ended.stderr
    assert ended.stdout == b""


def test_the_version(command: Command) -> None:
    assert command("--version").out == f"trueloop {trueloop.__version__}\n"
