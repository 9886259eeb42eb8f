"""What was found, for a person (``text``) or a machine (``json``, ``sarif``, ``github``). No torch, no trace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO, get_args

from trueloop.doctor.findings import Finding

Format = Literal["text", "json", "sarif", "github"]
FORMATS: tuple[Format, ...] = get_args(Format)


class Sentence(NamedTuple):
    """What one rule, or the doctor itself (no name), has to say."""

    name: str | None
    text: str


@dataclass(frozen=True)
class Report:
    """All that there is to say after a run or a reading.

    Args:
        findings: those that are left, the gravest first.
        command: who says it.
        passed: what was checked and found right.
        unseen: what could not be seen, and why.
        kept_back: findings that comments in the code kept back.
        steps: optimizer steps that were seen; None where nothing ran.
        script: the script that was run, and how it ended, as ``--format json`` has it; None where nothing ran.
        ended: how it ended in a few words, if not by itself.
        over: False while the script still runs.
    """

    findings: Sequence[Finding] = ()
    command: str = "trueloop doctor"
    passed: Sequence[Sentence] = ()
    unseen: Sequence[Sentence] = ()
    kept_back: Sequence[Finding] = ()
    steps: int | None = None
    script: dict[str, Any] | None = None
    ended: str | None = None
    over: bool = True


def written(report: Report, form: Format) -> str:
    """The report in a format for machines (``text`` needs to know the terminal: ``text.write``).

    Example:
        >>> written(Report(), "github")
        ''
    """
    write: Callable[[Report], str] = import_module(f"{__name__}.{form}").write
    return write(report)


def shown_path(file: str, below: Path | None = None) -> str:
    """A file as people write it: relative, if it is below a folder; that is the working directory, if none is named.

    Example:
        >>> shown_path(os.path.join(os.getcwd(), "train.py"))
        'train.py'
        >>> shown_path("/home/me/code/train.py", Path("/home/me"))
        'code/train.py'
    """
    if not os.path.isabs(file):
        return file
    try:
        return str(Path(file).relative_to(below or Path.cwd()))
    except (ValueError, OSError):
        return file


def repository(report: Report) -> Path:
    """The folder from which the hosts of repositories resolve paths, wherever in it the doctor was called.

    That is ``GITHUB_WORKSPACE``, if the first file that a finding names is below it; else the nearest folder above that
    file, or above the working directory, that holds a ``.git``; else the working directory.

    Example:
        >>> Path.cwd().is_relative_to(repository(Report()))
        True
    """
    here = Path.cwd()
    file = here / next((finding.file for finding in report.findings if finding.file is not None), "none")
    workspace = os.environ.get("GITHUB_WORKSPACE")
    for folder in (Path(workspace), Path(workspace).resolve()) if workspace else ():
        if file.is_relative_to(folder):
            return folder
    return next((folder for folder in (*file.parents, here, *here.parents) if (folder / ".git").exists()), here)


def counted(report: Report) -> str:
    """How many findings of each level, in words.

    Example:
        >>> counted(Report([Finding("overfitting", 601, "warning", "measured", "…")] * 2))
        '2 warnings'
    """
    numbers = [
        (sum(finding.level == level for finding in report.findings), level) for level in ("error", "warning", "note")
    ]
    words = [f"{number} {level}{'s' * (number != 1)}" for number, level in numbers if number]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "nothing"


def screen(stream: TextIO | None) -> tuple[bool, int]:
    """Whether a stream is to have colours, and how wide its lines may be; None is a file.

    ``NO_COLOR`` and ``FORCE_COLOR`` (https://no-color.org, https://force-color.org) are obeyed.

    Example:
        >>> screen(None)
        (False, 100)
    """
    terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    colours = terminal or bool(os.environ.get("FORCE_COLOR"))
    width = min(shutil.get_terminal_size().columns, 120) if terminal else 100
    return stream is not None and colours and not os.environ.get("NO_COLOR"), max(60, width)
