"""Which rules are asked for, and from which level on they decide: from ``[tool.trueloop]``, where flags say nothing."""

from __future__ import annotations

import difflib
import glob
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from trueloop.doctor.findings import LEVELS, Finding, Level
from trueloop.errors import ArgumentError, UnknownNameError

KINDS = {
    "select": "a list of names and codes of rules",
    "ignore": "a list of names and codes of rules",
    "fail-on": "note, warning or error",
    "show-passed": "true or false",
    "max-steps": "a whole number of at least 1",
    "max-seconds": "a number above 0",
    "exclude": "a list of names and paths of files and folders, with * and ? for what varies",
}
"""The keys of ``[tool.trueloop]``, and what each expects."""


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Args:
        select: only these rules; empty takes all. Each is a name, a code, or a hundred (``3xx``).
        ignore: not these.
        fail_on: a finding of this level or graver sets the exit code 1.
        show_passed: what was checked and found right is told as well.
        max_steps: a script is ended after so many optimizer steps.
        max_seconds: … and after so many seconds.
        exclude: patterns of whole paths that `trueloop check` does not read (``below`` makes them).

    Example:
        >>> Settings(fail_on="error").fails([Finding("broadcast-loss", 304, "warning", "certain", "…")])
        False
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: Level = "warning"
    show_passed: bool = False
    max_steps: int | None = None
    max_seconds: float | None = None
    exclude: tuple[str, ...] = ()

    def fails(self, findings: Iterable[Finding]) -> bool:
        """Whether one of the findings is grave enough."""
        return any(LEVELS.index(finding.level) >= LEVELS.index(self.fail_on) for finding in findings)

    def flagged(self, flags: Mapping[str, Any]) -> Settings:
        """The same, with what the flags say; a flag that is None, False or empty says nothing."""
        said = {key: value for key, value in flags.items() if value is not None and value is not False and value != ()}
        return _checked(replace(self, **said))


class Rules(NamedTuple):
    """Which rules speak, by the names and codes of a catalogue.

    Example:
        >>> rules = Rules.chosen({"broadcast-loss": 304, "overfitting": 601}, select=["3xx"])
        >>> "broadcast-loss" in rules.speak, "overfitting" in rules.speak
        (True, False)
    """

    speak: frozenset[str]

    @classmethod
    def chosen(cls, known: Mapping[str, int], select: Iterable[str] = (), ignore: Iterable[str] = ()) -> Rules:
        """Those selected (all, if none is) without those ignored.

        Args:
            known: each rule's code by its name.
            select: names, codes and hundreds.
            ignore: likewise.

        Raises:
            ArgumentError: one of them stands for no rule.
        """
        asked = [name for entry in select for name in named(known, entry)]
        left_out = {name for entry in ignore for name in named(known, entry)}
        return cls(frozenset(asked or known) - left_out)


def named(known: Mapping[str, int], entry: str) -> list[str]:
    """The names of the rules that a name, a code or a hundred stands for.

    Raises:
        ArgumentError: it stands for none; the nearest is offered.

    Example:
        >>> named({"broadcast-loss": 304, "overfitting": 601}, "601")
        ['overfitting']
    """
    entry = entry.strip()
    found = [name for name, code in known.items() if stands_for(entry, name, code)]
    if found:
        return found
    near = difflib.get_close_matches(entry, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ArgumentError(f"expected a rule's name or code, got {entry!r}; {hint}`trueloop rules` lists them all")


def listed(given: str) -> tuple[str, ...]:
    """What a flag names, by commas.

    Example:
        >>> listed("3xx,unsafe-load,")
        ('3xx', 'unsafe-load')
    """
    return tuple(name for name in given.split(",") if name.strip())


def stands_for(entry: str, name: str, code: int) -> bool:
    """Whether an entry, in settings or in a comment, is this rule's name, its code, or the hundred of that.

    Example:
        >>> [stands_for(entry, "broadcast-loss", 304) for entry in ("broadcast-loss", "304", "3xx", "30")]
        [True, True, True, False]
    """
    return entry in (name, str(code), f"{code // 100}xx")


def read(near: Path, known: Mapping[str, int] | None = None) -> Settings:
    """The settings of the nearest ``pyproject.toml`` upwards that has a table ``[tool.trueloop]``; else the defaults.

    Args:
        near: a folder.
        known: each rule's code by its name, to look ``select`` and ``ignore`` up in; None takes them as they are.

    Raises:
        ArgumentError: the file is no TOML, or a setting is of the wrong kind, or names a rule that is none.
        UnknownNameError: there is no such setting; the nearest is offered.

    Example:
        >>> read(Path("/")) == Settings()
        True
    """
    near = near.resolve()
    for folder in (near, *near.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            tools = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ArgumentError(f"expected a file that is TOML, got one that is not: {error}", file=file) from error
        if "trueloop" in tools:
            return _from_table(tools["trueloop"], file, known)
    return Settings()


def below(folder: Path, entry: str) -> tuple[str, ...]:
    """The patterns of whole paths that an entry of ``exclude`` stands for, as ruff reads it.

    A name alone is one at any depth; what holds a slash is a path from the folder on; ``*`` stands for slashes too.

    Example:
        >>> below(Path("/p"), "data_*.py")
        ('/p/*/data_*.py', '/p/data_*.py')
        >>> below(Path("/p"), "vendor/old/")
        ('/p/vendor/old',)
    """
    path = entry.removeprefix("./").rstrip("/")
    path = path if "/" in path else f"**/{path}"
    whole = path if os.path.isabs(path) else f"{glob.escape(folder.as_posix()).rstrip('/')}/{path}"
    return tuple(dict.fromkeys((whole.replace("/**/", "/*/"), whole.replace("/**/", "/"))))


def _from_table(table: object, file: Path, known: Mapping[str, int] | None) -> Settings:
    if not isinstance(table, dict):
        raise ArgumentError(f"expected [tool.trueloop] to be a table, got {table!r}", file=file)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in KINDS:
            raise UnknownNameError("setting in [tool.trueloop]:", key, KINDS, file=file)
        if key in ("select", "ignore"):
            entries = [value] if isinstance(value, (str, int)) else value
            if not isinstance(entries, list) or not all(isinstance(entry, (str, int)) for entry in entries):
                raise _wrong(key, value, file)
            value = tuple(str(entry) for entry in entries)
            if known is not None:
                _look_up(known, value, key, file)
        elif key == "exclude":
            entries = [value] if isinstance(value, str) else value
            if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
                raise _wrong(key, value, file)
            value = tuple(pattern for entry in entries for pattern in below(file.parent, entry))
        elif (key == "show-passed") != isinstance(value, bool):
            raise _wrong(key, value, file)
        values[key.replace("-", "_")] = value
    try:
        return _checked(Settings(**values))
    except ArgumentError as error:
        raise ArgumentError(str(error), file=file) from error


def _look_up(known: Mapping[str, int], entries: Iterable[str], key: str, file: Path) -> None:
    try:
        for entry in entries:
            named(known, entry)
    except ArgumentError as error:
        raise ArgumentError(f"{key} in [tool.trueloop]: {error}", file=file) from None


def _wrong(key: str, value: object, file: Path | None = None) -> ArgumentError:
    return ArgumentError(f"{key} is to be {KINDS[key]}, got {value!r}", file=file)


def _checked(settings: Settings) -> Settings:
    if settings.fail_on not in LEVELS:
        raise _wrong("fail-on", settings.fail_on)
    steps, seconds = settings.max_steps, settings.max_seconds
    if steps is not None and not (_is(int, steps) and steps >= 1):
        raise _wrong("max-steps", steps)
    if seconds is not None and not (_is((int, float), seconds) and seconds > 0):
        raise _wrong("max-seconds", seconds)
    return settings


def _is(kind: type | tuple[type, ...], value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
