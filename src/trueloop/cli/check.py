"""``trueloop check [FLAGS] PATH…``: reads training scripts without running them, and mends what can be mended."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trueloop.errors import ArgumentError

if TYPE_CHECKING:
    from trueloop.doctor.findings import Finding
    from trueloop.doctor.output import Format
    from trueloop.doctor.settings import Settings
    from trueloop.doctor.source.fixes import Checked, Fixed
    from trueloop.doctor.source.look import Check, Looked
    from trueloop.doctor.source.read import Source, Unread
    from trueloop.doctor.source.tell import Reading

FOUND = 1
"""The exit code if a finding is as grave as --fail-on, or graver; with --diff, if there is something to mend."""
FAILED = 2
"""… if the check itself broke on a file, or a file could not be written."""
ROUNDS = 10
"""How often all files are read again because some were mended."""

DESCRIPTION = """
Reads Python files and notebooks, without running them and without importing torch, and says what is wrong with the
training. A folder is searched for files; `-` is standard input; without a path it is this folder.
"""
ENDING = """
A fix is shown as a diff; --fix applies those that cannot change what a right script means, --unsafe-fixes all of them:
most mistakes of a training can be mended only by changing what it does.

exit code: 0 nothing found, 1 a finding of the level of --fail-on or graver (with --diff: something to mend),
           2 wrong use, or a file that the check broke on, 130 Ctrl-C

Settings may stand in pyproject.toml, [tool.trueloop]: select, ignore, fail-on, exclude.
`# trueloop: ignore[rule-name]` on a line keeps a finding back. `trueloop explain NAME` tells more of a rule.
"""


def run(arguments: Sequence[str], check: Check | None = None) -> int:
    """Reads the files and says what is wrong.

    Args:
        arguments: the command line's.
        check: looks at one source; None takes the doctor's own rules.
    """
    given = _parser().parse_args(arguments)
    given.fix = given.fix or given.unsafe_fixes or given.diff
    speak, settings = _asked_for(given)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not know every letter of a script
    if "-" in given.paths:
        return _standard_input(given, speak, settings, check)
    from trueloop.cli.doctor import output_file

    output = output_file(given.output)
    all_looked, troubles, applied, diffs = _mended(given, speak, settings.exclude, check)
    reading = _reading(all_looked, speak, applied, troubles)
    if given.diff:
        _put(b"".join(diffs))
        print(*_beside_a_patch(reading, len(diffs), given.unsafe_fixes), sep="\n", file=sys.stderr)
    else:
        _tell(reading, given, output)
    failures = [f"{looked.path}: {looked.failed}" for looked in all_looked if looked.failed] + troubles.unwritten
    for failure in failures:
        print(f"trueloop check: {failure}", file=sys.stderr)
    if given.diff:
        return FAILED if failures else FOUND * bool(diffs)
    return _code(bool(failures), reading, settings, given)


# Reading and mending


class _Troubles(NamedTuple):
    """What could not be read or written."""

    unread: list[Unread]
    unwritten: list[str]


def _mended(
    given: argparse.Namespace, speak: frozenset[str] | None, exclude: tuple[str, ...], check: Check | None
) -> tuple[list[Looked], _Troubles, list[tuple[str, Checked]], list[bytes]]:
    """Looks at all files, and mends them until there is nothing to mend, if that is asked for."""
    from contextlib import ExitStack
    from tempfile import TemporaryDirectory

    from trueloop.doctor.source.cache import Cache, user_folder
    from trueloop.doctor.source.discover import discover
    from trueloop.doctor.source.look import look

    for path in given.paths:
        if not os.path.lexists(path):
            raise ArgumentError(f"expected files and folders that exist, got {path!r}, which does not")
    files, unread = discover(given.paths, exclude, also_named=given.force_exclude)
    troubles, diffs = _Troubles(unread, []), list[bytes]()
    applied: list[tuple[str, Checked]] = []
    with ExitStack() as at_the_end:
        folder = Path(given.cache) if given.cache else user_folder()
        if given.no_cache:  # within this run, what was not mended is not read again all the same
            folder = Path(at_the_end.enter_context(TemporaryDirectory())) if given.fix and not given.diff else None
        cache = Cache(folder)
        for _ in range(ROUNDS):
            looked = list(look(files, cache, check=check, jobs=given.jobs or _processors()))
            written = 0
            for one in looked if given.fix else ():
                fixed = _fixed(one, given.unsafe_fixes, speak, check)
                if one.source is None or fixed is None or fixed.source.text == one.source.text:
                    continue
                if given.diff:
                    diffs.append(_changes(one.source, fixed.source))
                elif (trouble := _write(one.source, fixed.source)) is not None:
                    troubles.unwritten.append(trouble)
                else:
                    written += 1
                    applied += [(one.path, checked) for checked in fixed.applied]
                    cache.forget(one.path)
            if not written:
                break
            troubles.unwritten.clear()
    return looked, troubles, applied, diffs


def _fixed(looked: Looked, unsafe: bool, speak: frozenset[str] | None, check: Check | None) -> Fixed | None:
    """A source after its fixes; None if there are none."""
    if looked.source is None or not any(checked.fix is not None for checked in looked.found):
        return None
    from trueloop.doctor.source.fixes import fixed
    from trueloop.doctor.source.judge import judged
    from trueloop.doctor.source.look import look_into
    from trueloop.doctor.source.parse import trouble

    def ask(source: Source) -> list[Checked]:
        return judged([(source, look_into(source, check).found)], speak, whole=False).left

    found = judged([(looked.source, looked.found)], speak, whole=False).left
    return fixed(looked.source, ask, lambda text: trouble(text) is None, unsafe=unsafe, found=found)


def _changes(before: Source, after: Source) -> bytes:
    """A diff in the file's own encoding, so that it can be applied."""
    from trueloop.doctor.source.tell import changes

    return changes(before, after).encode(before.encoding, errors="backslashreplace")


def _put(content: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _write(before: Source, after: Source) -> str | None:
    """Writes a mended file in one piece; says why not, if it cannot."""
    file = Path(os.path.realpath(before.path))
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        if not os.access(file, os.W_OK):
            return f"{before.path}: not mended: it is write-protected"
        if file.read_bytes() != before.as_bytes():
            return f"{before.path}: not mended: it changed meanwhile, or its encoding is not written as it was read"
        aside.write_bytes(after.as_bytes())
        shutil.copymode(file, aside)
        os.replace(aside, file)
    except (OSError, UnicodeEncodeError) as error:
        aside.unlink(missing_ok=True)
        return f"{before.path}: not mended: {error}"
    return None


def _standard_input(
    given: argparse.Namespace, speak: frozenset[str] | None, settings: Settings, check: Check | None
) -> int:
    """Reads a script from standard input; with --fix, standard output is the mended one."""
    from trueloop.doctor.source.discover import is_excluded
    from trueloop.doctor.source.look import Looked, look_into
    from trueloop.doctor.source.read import STDIN, Unread, of_bytes

    if given.paths != ["-"]:
        raise ArgumentError(f"expected `-` alone, which is standard input, got {' '.join(given.paths)}")
    from trueloop.cli.doctor import output_file

    output = output_file(given.output)
    content = sys.stdin.buffer.read()
    path = os.path.abspath(given.stdin_filename) if given.stdin_filename else STDIN
    left_out = given.force_exclude and is_excluded(path, settings.exclude)
    source = None if left_out else of_bytes(content, path)
    looked = (
        Looked(path, unread=source)
        if isinstance(source, Unread)
        else Looked(path)
        if source is None
        else look_into(source, check)
    )
    fixed = _fixed(looked, given.unsafe_fixes, speak, check) if given.fix else None
    changed = fixed is not None and looked.source is not None and fixed.source.text != looked.source.text
    applied = [(path, checked) for checked in fixed.applied] if fixed is not None and changed else []
    if given.diff:
        if changed and fixed is not None and looked.source is not None:
            _put(_changes(looked.source, fixed.source))
        return FAILED if looked.failed else FOUND * changed
    if given.fix:
        _put(fixed.source.as_bytes() if changed and fixed is not None else content)
    if changed and fixed is not None:
        looked = looked._replace(source=fixed.source, found=tuple(fixed.left))
    reading = _reading([looked], speak, applied, _Troubles([], []))
    _tell(reading, given, output, aside=given.fix)
    if looked.failed:
        print(f"trueloop check: {path}: {looked.failed}", file=sys.stderr)
    return _code(bool(looked.failed), reading, settings, given)


# What is said of it


def _reading(
    all_looked: Sequence[Looked],
    speak: frozenset[str] | None,
    applied: Sequence[tuple[str, Checked]],
    troubles: _Troubles,
) -> Reading:
    from trueloop.doctor.source.tell import Reading

    readable = [(one.source, one.found) for one in all_looked if one.source is not None and not one.unread]
    sources = {one.source.path: one.source for one in all_looked if one.source is not None}
    left: list[Checked] = []
    kept_back: list[Finding] = []
    if any(found or "trueloop:" in source.text for source, found in readable):
        from trueloop.doctor.source.judge import judged

        left, kept_back = judged(readable, speak)
    unread = [one.unread for one in all_looked if one.unread is not None]
    left = [_no_python(one) for one in [*troubles.unread, *unread]] + left
    return Reading(left, sources, len(all_looked), kept_back, applied)


def _no_python(unread: Unread) -> Checked:
    """A file that cannot be read is told whatever rules are asked for: nothing is known of it."""
    from trueloop.doctor.findings import Finding, Place
    from trueloop.doctor.source.fixes import Checked
    from trueloop.doctor.suppress import ABOUT, UNREADABLE

    about = ABOUT[UNREADABLE[0]]
    return Checked(
        Finding(
            *UNREADABLE,
            "error",
            "certain",
            f"this could not be read: {unread.message}",
            meaning=about["Why it matters"],
            help=about["Fix"],
            place=Place(unread.path, unread.line or 1),
        )
    )


def _beside_a_patch(reading: Reading, files: int, unsafe: bool) -> Iterator[str]:
    """What there is to say of a patch, and of what it cannot mend."""
    from trueloop.doctor.output import shown_path
    from trueloop.doctor.suppress import UNREADABLE

    for finding, _ in reading.left:
        if finding.name == UNREADABLE[0]:
            yield f"{shown_path(str(finding.place))}: {finding.message}"
    more = 0 if unsafe else sum(fix is not None and not fix.safe for _, fix in reading.left)
    offered = f"; {more} more fix{'es' * (more != 1)} by --unsafe-fixes" if more else ""
    yield f"trueloop check: {files} file{'s' * (files != 1)} would be changed{offered}"


def _code(failed: bool, reading: Reading, settings: Settings, given: argparse.Namespace) -> int:
    """The exit code."""
    found = settings.fails(checked.finding for checked in reading.left)
    return FAILED if failed else FOUND * (found and not given.exit_zero)


def _tell(reading: Reading, given: argparse.Namespace, output: Path | None, *, aside: bool = False) -> None:
    """Writes the report to standard output, or to --output; to standard error if standard output is the script's."""
    from trueloop.cli.doctor import put
    from trueloop.doctor.output import screen
    from trueloop.doctor.source.tell import statistics, told

    stream = sys.stderr if aside else sys.stdout
    form: Format = given.format
    if given.statistics:
        whole = statistics(reading, form)
    else:
        colours, width = screen(stream if output is None else None)
        whole = told(reading, form, colours=colours, width=width)
    if output is None:
        stream.write(whole)  # a reader that has gone away (`| head`) is the front door's affair
        stream.flush()
    else:
        put(whole, reading.report(), output, stream)


# What is asked for


def _asked_for(given: argparse.Namespace) -> tuple[frozenset[str] | None, Settings]:
    """The rules that speak, None for all, and the settings."""
    from trueloop.doctor.settings import Rules, below, read

    if given.jobs is not None and given.jobs < 1:
        raise ArgumentError(f"expected --jobs of at least 1, got {given.jobs}")
    if given.statistics and given.format not in ("text", "json"):
        raise ArgumentError(f"expected --format text or json with --statistics, got {given.format}")
    flags = {key: getattr(given, key) for key in ("select", "ignore", "fail_on")}
    flags["exclude"] = tuple(pattern for entry in given.exclude or () for pattern in below(Path.cwd(), entry))
    near = _near(given)
    settings = read(near).flagged(flags)
    if not settings.select and not settings.ignore:
        return None, settings
    from trueloop.doctor.pages import codes

    read(near, codes())  # a rule that is none is told with the file that names it
    return Rules.chosen(codes(), settings.select, settings.ignore).speak, settings


def _near(given: argparse.Namespace) -> Path:
    """The folder that all paths share, from which on settings are looked for."""
    paths = [
        os.path.abspath(given.stdin_filename or "x") if path == "-" else os.path.abspath(path) for path in given.paths
    ]
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in paths]
    return Path(os.path.commonpath(folders))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    from trueloop.doctor.findings import LEVELS
    from trueloop.doctor.output import FORMATS
    from trueloop.doctor.settings import listed

    parser = argparse.ArgumentParser(
        prog="trueloop check",
        usage="trueloop check [FLAGS] [PATH …]",
        description=DESCRIPTION,
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths", nargs="*", default=["."], metavar="PATH", help="files and folders; - is standard input"
    )
    parser.add_argument("--fix", action="store_true", help="apply the safe fixes")
    parser.add_argument("--unsafe-fixes", action="store_true", help="apply all fixes")
    parser.add_argument("--diff", action="store_true", help="print what --fix would change, and change nothing")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", metavar="FILE", help="write the report to a file")
    parser.add_argument("--statistics", action="store_true", help="tell only how often each rule spoke")
    parser.add_argument("--fail-on", choices=LEVELS[::-1], help="the mildest level that sets the exit code 1 (warning)")
    parser.add_argument(
        "--select", type=listed, metavar="RULES", help="only these: names, codes or hundreds (3xx), by commas"
    )
    parser.add_argument("--ignore", type=listed, metavar="RULES", help="not these")
    parser.add_argument("--exclude", type=listed, metavar="PATTERNS", help="files and folders that are not read")
    parser.add_argument("--force-exclude", action="store_true", help="leave those out also if they are named")
    parser.add_argument("--exit-zero", action="store_true", help="exit code 0 whatever is found")
    parser.add_argument("--jobs", type=int, default=None, metavar="N", help="so many processes (one a core)")
    parser.add_argument("--cache", metavar="FOLDER", help="where to keep what was found (~/.cache/trueloop/check)")
    parser.add_argument("--no-cache", action="store_true", help="read every file again, and keep nothing")
    parser.add_argument("--stdin-filename", metavar="FILE", help="the name of what comes from standard input")
    return parser
