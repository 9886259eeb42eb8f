"""Runs a script as ``python script.py`` would, and listens to it from the moment that it imports torch.

The script is ``__main__``, has its own arguments, path and exit, and does not know that it is heard. We import torch no
earlier than it does, so that what it sets before (``OMP_NUM_THREADS``, ``CUDA_VISIBLE_DEVICES``) holds.
"""

from __future__ import annotations

import builtins
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, NamedTuple

from trueloop.doctor.awaited import once_imported
from trueloop.doctor.children import Heard, children_heard
from trueloop.doctor.findings import Finding
from trueloop.doctor.leaving import (
    Terminated,
    default_signals_in_forks,
    ended_by_signals,
    told_before_leaving,
    undisturbed,
)
from trueloop.doctor.limits import Limits
from trueloop.doctor.places import is_users
from trueloop.doctor.unnoticed import flush, raised_by_us, show, warnings_from_their_lines
from trueloop.errors import ArgumentError

if TYPE_CHECKING:
    from trueloop.doctor.listen import Ear
    from trueloop.doctor.trace import Trace

SIGNALLED = 128
"""What shells add to a signal's number for the exit code."""
INTERRUPTED = SIGNALLED + 2  # SIGINT


class Script(NamedTuple):
    """What is to be run, as it stands on the command line."""

    name: str
    """A file's path, or a module's name."""
    arguments: tuple[str, ...] = ()
    is_module: bool = False

    @property
    def folder(self) -> Path:
        """Where it stands; a module is looked for from the working directory."""
        return Path.cwd() if self.is_module else Path(self.name).resolve().parent

    def __str__(self) -> str:
        return f"-m {self.name}" if self.is_module else self.name


class Enough(BaseException):
    """Ends the script in good order: ``finally`` and ``atexit`` run, and ``except Exception`` does not catch it."""


@dataclass
class Run:
    """A run of a script: what was heard, and how it ended.

    Args:
        script: what was run.
        exit: the exit code that plain Python would have ended with; None while the script runs.
        error: what ended it, as ``ValueError: …``; None if it ended by itself.
        failed: it failed by itself: an error, or an exit code other than 0.
        stopped: why it was ended early, if it was.
        notes: what could not be heard.
        children: asks what was heard in processes that the script has started.
    """

    script: Script
    exit: int | None = None
    error: str | None = None
    failed: bool = False
    stopped: str | None = None
    notes: list[str] = field(default_factory=list)
    children: Callable[[], list[Heard]] = list
    ear: Ear | None = None
    started: float = field(default_factory=time.monotonic)

    def note(self, sentence: str) -> None:
        """Keeps what could not be heard, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @property
    def trace(self) -> Trace | None:
        """What was heard; None if the script did not import torch."""
        return None if self.ear is None else self.ear.trace

    @property
    def files(self) -> list[str]:
        """The user's files that were loaded, the script's first."""
        loaded = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        first = getattr(sys.modules.get("__main__"), "__file__", None)
        theirs = [
            file for file in (first, *loaded) if isinstance(file, str) and file.endswith(".py") and is_users(file)
        ]
        return list(dict.fromkeys(os.path.abspath(file) for file in theirs))


def run(
    script: Script,
    told: Callable[[Run], int],
    *,
    found: Callable[[Run], None] | None = None,
    max_steps: int | None = None,
    max_seconds: float | None = None,
) -> int:
    """Runs a script in this process, which is given up to it: ``__main__`` stays the script's.

    Args:
        script: what to run.
        told: called once, when the script has ended, whichever way; its number is the exit code.
        found: called after each finding, while the script still runs.
        max_steps: the script is ended after so many optimizer steps.
        max_seconds: … and after the first step that ends so long after the start.

    Returns:
        The exit code. In a process that the script has forked: that of the script.

    Raises:
        ArgumentError: there is no such script or module.
    """
    ran, process, codes = Run(script), os.getpid(), list[int]()
    limits = Limits(max_steps, max_seconds, ran.started)

    def begin() -> None:
        try:
            if os.getpid() == process:
                _listen(ran, found, limits)
        except Exception as error:  # ours: it must not become the script's
            ran.note(f"the doctor could not listen: {type(error).__name__}: {error}")

    def finish(error: BaseException | None, code: int) -> int:
        if os.getpid() != process:
            return code
        with undisturbed():
            if not codes:
                ran.exit = code
                flush()
                if ran.ear is not None:
                    ran.ear.finish(error)
                ran.stopped = next((one.stopped for one in ran.children() if one.stopped), ran.stopped)
                codes.append(told(ran))
        return codes[0]

    def left(how: str, code: int) -> int:
        ran.stopped, ran.failed = how, code != 0
        return finish(SystemExit(code) if code else None, code)

    default_signals_in_forks()
    with (
        once_imported("torch", begin),
        told_before_leaving(left),
        ended_by_signals(),
        children_heard(ran.note, limits) as children,
        warnings_from_their_lines(),
    ):
        ran.children = children
        try:
            _execute(script)
        except Enough as enough:
            ran.stopped = str(enough)
            return finish(enough, 0)
        except Terminated as terminated:
            ran.stopped = f"it was ended by {terminated}"
            finish(terminated, terminated.number + SIGNALLED)
            return terminated.number + SIGNALLED
        except SystemExit as exited:
            code = _code_of(exited)
            ran.failed = code != 0
            ran.error = f"SystemExit: {exited.code}" if code else None
            return finish(exited if code else None, code)
        except KeyboardInterrupt as interrupt:
            show(interrupt)
            ran.stopped = "it was interrupted (Ctrl-C)"
            finish(interrupt, INTERRUPTED)
            return INTERRUPTED
        except BaseException as error:
            if isinstance(error, ArgumentError) and raised_by_us(error):
                if ran.ear is not None:
                    ran.ear.finish(error)
                raise
            with undisturbed():
                show(error)
                ran.failed, ran.error = True, f"{type(error).__name__}: {error}"
                return finish(error, 1)
        return finish(None, 0)


# Running it


def _execute(script: Script) -> None:
    """Runs the script as ``__main__``."""
    main = ModuleType("__main__")
    start = os.path.dirname(os.path.realpath(sys.argv[0])) if sys.argv and sys.argv[0] else ""
    replaces = bool(sys.path) and sys.path[0] in ("", os.getcwd(), start)
    if script.is_module:
        _put_first(os.getcwd(), replaces)
        sys.argv[:] = ["-m", *script.arguments]
        spec = _spec_of(script.name)
        assert spec.loader is not None and spec.origin is not None, "a module with code has both"  # noqa: PT018
        code: CodeType | None = spec.loader.get_code(spec.name)  # type: ignore[attr-defined]
        path, loader, package, cached = spec.origin, spec.loader, spec.parent, spec.cached
        sys.argv[0] = path
    else:
        path = _file_of(script.name)
        _put_first(os.path.dirname(os.path.realpath(path)), replaces)
        sys.argv[:] = [script.name, *script.arguments]
        spec, loader, package, cached, code = None, SourceFileLoader("__main__", path), None, None, None
    names: dict[str, object] = {
        "__file__": path,
        "__spec__": spec,
        "__loader__": loader,
        "__package__": package,
        "__cached__": cached,
        "__builtins__": builtins,
        "__annotations__": {},
    }
    vars(main).update(names)
    sys.modules["__main__"] = (
        main  # for good: what is pickled at exit, and what a spawned worker is told, is the script's
    )
    if code is None:
        code = compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
    exec(code, vars(main))
    for thread in threading.enumerate():  # Python waits for them as well, before it ends
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()


def _file_of(name: str) -> str:
    """The file's absolute path; of a folder, its ``__main__.py``."""
    path = os.path.abspath(name)
    if os.path.isdir(path) and os.path.isfile(os.path.join(path, "__main__.py")):
        return os.path.join(path, "__main__.py")
    if not os.path.isfile(path):
        raise ArgumentError("expected a script to run, found no such file; for a module, write -m NAME", file=name)
    return path


def _spec_of(name: str) -> ModuleSpec:
    """What ``python -m`` would run: the module, or its package's ``__main__``."""
    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the package is there; what it imports is not
        spec = None
    except ValueError:
        spec = None
    if spec is None or spec.loader is None or not hasattr(spec.loader, "get_code"):
        raise ArgumentError(f"expected a module to run, found none that is called {name!r}")
    return spec


def _put_first(folder: str, replaces: bool) -> None:
    if sys.flags.safe_path:
        return
    if replaces:
        sys.path[0] = folder
    else:
        sys.path.insert(0, folder)


# Listening to it


def _listen(run: Run, found: Callable[[Run], None] | None, limits: Limits) -> None:
    """Puts the ear to torch, which has just been imported."""
    from trueloop.doctor.catalogue import dynamic_rules
    from trueloop.doctor.listen import Ear
    from trueloop.doctor.trace import Trace

    process = os.getpid()

    def tell(finding: Finding) -> None:
        if found is not None and os.getpid() == process:
            found(run)

    trace = Trace(dynamic_rules(), found=tell)
    if limits.any:
        trace.each_step = partial(_end, trace, limits)
    trace.thread = threading.main_thread().ident or trace.thread
    trace.save_to = Path.cwd()
    run.ear = Ear(trace)
    run.ear.listen()


def _end(trace: Trace, limits: Limits) -> None:
    """Ends the script when it is enough."""
    if reached := limits.reached(trace):
        raise Enough(reached)


def _code_of(error: SystemExit) -> int:
    """What Python exits with; a code that is a text is printed, as Python does."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    flush()
    print(error.code, file=sys.stderr)
    return 1
