"""The run's folder: claimed before the run, and described by ``run.json``."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

from trueloop.errors import RunFolderError
from trueloop.events import EvalEnded, Event, RunEnded, RunStarted

_NAME = "run.json"
_RECORD = (_NAME, "events.jsonl")
_WEIGHTS = "model.safetensors"


def claim(out: Path | str, settings: Mapping[str, object]) -> Path:
    """Make the run's folder and write its ``run.json``.

    Args:
        out: the folder; made, with its parents, if it is not there.
        settings: what the run was asked for; ``seed`` is among them if there is one. What JSON does not know is
            written as its ``str``.

    Returns:
        The folder. Its ``run.json`` holds ``status`` (``running``), ``settings``, ``seed``, ``versions``, ``command``,
        ``folder`` (the working directory), ``git`` (commit, dirty), ``threads`` and ``started`` (ISO 8601, UTC).

    Raises:
        RunFolderError: the folder holds another run, or weights that this one would replace; it is one that the working
            directory lies in, is a file, or cannot be written.

    Example:
        >>> import tempfile
        >>> out = claim(Path(tempfile.mkdtemp(), "first"), {"epochs": 3, "seed": 7})
        >>> json.loads((out / "run.json").read_text())["settings"]
        {'epochs': 3, 'seed': 7}
        >>> claim(out, {"epochs": 4})  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        trueloop.errors.RunFolderError: the folder holds another run; choose another or delete it
    """
    out = Path(out)
    if out.resolve() in Path.cwd().parents:  # "..", a slip of the hand: whatever else is in there is not the run's
        raise RunFolderError(
            f"expected a folder for the run, got one that the working directory lies in, {str(out)!r}; name one of its "
            "own, for example runs/first",
            file=out.resolve(),
        )
    facts = {
        "status": "running",
        "settings": dict(settings),
        "seed": settings.get("seed"),
        "versions": _versions(),
        "command": [sys.executable, *sys.argv],
        "folder": str(Path.cwd()),
        "git": _git(),
        "threads": _threads(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(out, facts, new=True)
    except FileExistsError as error:
        if not out.is_dir():
            raise RunFolderError("expected a folder for the run, got a file; choose another name", file=out) from error
        if not _any_of(_RECORD, out):
            raise RunFolderError(
                f"the folder holds a {_WEIGHTS}, which this run would replace at its end; choose another folder",
                file=out,
            ) from error
        raise RunFolderError(
            "the folder holds another run; choose another folder for this one, or go on with that one: trueloop resume "
            f"{out}, or fit(…, resume='auto')",
            file=out,
        ) from error
    except OSError as error:
        raise RunFolderError(
            f"the run's folder cannot be written: {error.strerror or error}; choose another, or mend its permissions",
            file=out,
        ) from error
    return out


def claim_again(out: Path, settings: Mapping[str, object], step: int) -> None:
    """Goes on in a run's folder: ``status`` is ``running`` again, ``resumed`` lists when, from which step and how."""
    facts = describe(out)
    now = {
        "step": step,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": dict(settings),
        "versions": _versions(),
        "command": [sys.executable, *sys.argv],
        "git": _git(),
        "threads": _threads(),
    }
    note(out, {"status": "running", "resumed": [*facts.get("resumed", []), now]})


def start_over(out: Path) -> None:
    """Clears the way for a run whose folder holds no checkpoint: what it had written is kept.

    As ``abandoned-run.json`` and so on; what a second one had written as ``abandoned-run.json.2``.

    Example:
        >>> import tempfile
        >>> out = claim(tempfile.mkdtemp(), {})
        >>> start_over(out); start_over(claim(out, {}))
        >>> sorted(file.name for file in out.iterdir())
        ['abandoned-run.json', 'abandoned-run.json.2']
    """
    written = (*_RECORD, _WEIGHTS)
    endings = (f".{number}" if number > 1 else "" for number in count(1))
    free = next(ending for ending in endings if not _any_of([f"abandoned-{name}{ending}" for name in written], out))
    for name in written:
        if (out / name).exists():
            (out / name).rename(out / f"abandoned-{name}{free}")


def note(out: Path | str, facts: Mapping[str, object]) -> None:
    """Add facts to the ``run.json`` of a claimed folder; a fact of the same name is replaced.

    Raises:
        RunFolderError: the folder holds no run, or cannot be written.

    Example:
        >>> import tempfile
        >>> out = claim(tempfile.mkdtemp(), {})
        >>> note(out, {"steps": 12})
        >>> describe(out)["steps"]
        12
    """
    try:
        _write(Path(out), {**describe(out), **facts}, new=False)
    except OSError as error:
        raise RunFolderError(f"the run's description cannot be written: {error.strerror}", file=Path(out)) from error


def describe(out: Path | str) -> dict[str, Any]:
    """What ``run.json`` says.

    Raises:
        RunFolderError: the folder holds no run, or its ``run.json`` is damaged.

    Example:
        >>> import tempfile
        >>> describe(claim(tempfile.mkdtemp(), {"epochs": 3}))["status"]
        'running'
    """
    path = Path(out, _NAME)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(f"expected the folder of a run, one with a {_NAME}, got {str(out)!r}") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"the description of the run cannot be read: {error}", file=path) from error
    if not isinstance(facts, dict):
        raise RunFolderError(f"expected a JSON object, got {type(facts).__name__}", file=path)
    return facts


class RunRecord:
    """Completes ``run.json`` when the run ends: status, reason, steps, epochs, seconds, metrics.

    ``status`` is ``finished``, ``stopped`` (by an observer; ``reason`` says why), ``interrupted``, ``preempted`` or
    ``failed``; a run that was killed is still ``running``. ``metrics`` are those of the last evaluation; a figure that
    is not finite is null, for JSON has no NaN.

    Args:
        out: a folder that ``claim`` gave.

    Example:
        >>> import tempfile
        >>> out = claim(tempfile.mkdtemp(), {})
        >>> RunRecord(out)(RunEnded(step=40, epoch=2, reason="interrupted", seconds=1.5, status="interrupted"))
        >>> facts = describe(out)
        >>> facts["status"], facts["steps"]
        ('interrupted', 40)
    """

    def __init__(self, out: Path | str) -> None:
        self.out = Path(out)
        self._metrics: Mapping[str, float] | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                note(self.out, {"data_seed": event.seed, "plan": event.plan.lines()})
            case EvalEnded():
                self._metrics = event.metrics
            case RunEnded():
                self._complete(event)

    def failed(self, reason: str) -> None:
        """What to write where no event is to come any more."""
        note(self.out, {"status": "failed", "reason": reason})

    def state_dict(self) -> dict[str, Any]:
        """The last evaluation's metrics."""
        return {"metrics": None if self._metrics is None else dict(self._metrics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave."""
        self._metrics = state["metrics"]

    def _complete(self, event: RunEnded) -> None:
        metrics = {name: v if math.isfinite(v) else None for name, v in (self._metrics or {}).items()}
        ended = {"status": event.status, "reason": event.reason, "steps": event.step, "epochs": event.epoch}
        note(self.out, ended | {"seconds": round(event.seconds, 3), "metrics": metrics})


def _write(out: Path, facts: Mapping[str, object], *, new: bool) -> None:
    """Written aside and put in place whole; a ``new`` one never replaces what is there, also if two try at once."""
    path, aside = out / _NAME, out / f".{_NAME}.{os.getpid()}"
    if new and _any_of((*_RECORD, _WEIGHTS), out):
        raise FileExistsError(str(path))
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(_plain(facts), file, indent=2, allow_nan=False, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            _link(aside, path)
        else:
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _any_of(names: Iterable[str], out: Path) -> bool:
    return any((out / name).exists() for name in names)


def _link(aside: Path, path: Path) -> None:
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the check above has to do
        aside.replace(path)


def _plain(value: object) -> object:
    """What JSON knows; all else, NaN and Inf too, as its ``str``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("trueloop", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    if found["trueloop"] is None:  # run from its source
        from trueloop import __version__

        found["trueloop"] = __version__
    return found


def _threads() -> dict[str, object]:
    import torch  # sums differ between 1 and 2 threads, so the count belongs to the run

    return {
        "torch": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "cpus": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def _git() -> dict[str, object] | None:
    """The commit that the working directory is at, and whether tracked files differ from it; None outside of git."""
    try:
        commit = _run_git("rev-parse", "HEAD").strip()
        dirty = bool(_run_git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _run_git(*arguments: str) -> str:
    # Optional locks off: a look at the state must not get in the way of the user's own git.
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
