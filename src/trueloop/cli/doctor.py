"""``trueloop doctor [FLAGS] script.py [its own flags]``: runs a script, unchanged, and says what is wrong with it.

``trueloop doctor --examine RECIPE [its own flags]`` is in ``examine.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trueloop.errors import ArgumentError

if TYPE_CHECKING:
    from trueloop.doctor.children import Heard
    from trueloop.doctor.output import Format, Report
    from trueloop.doctor.ranks import Ranks
    from trueloop.doctor.script import Run
    from trueloop.doctor.settings import Settings

FOUND = 1
"""The exit code if a finding is as grave as --fail-on, or graver."""
FAILED = 2
"""… if the script failed by itself."""

DESCRIPTION = """
Runs a training script as `python script.py` would, listens to torch, and says what is wrong with the training.
The script needs no change; what stands behind its name is its own.
"""
ENDING = """
The report goes to standard error, so that standard output is the script's. With --format json, sarif or github it
goes to standard output, and what the script prints there goes to standard error. --output writes it to a file instead.

exit code: 0 nothing found, 1 a finding of the level of --fail-on or graver, 2 the script failed by itself,
           130 Ctrl-C

Settings may stand in pyproject.toml, [tool.trueloop]: select, ignore, fail-on, show-passed, max-steps, max-seconds.
`# trueloop: ignore[rule-name]` on a line keeps a finding back. `trueloop explain NAME` tells more of a rule.

With --examine, what is named is a recipe, as for `trueloop train`: its model, loss and data are asked by experiments
(can one batch be learned by heart, do the splits share samples, …) and nothing is trained. --max-steps and
--max-seconds are then the limits of learning that batch (200 steps, 10 s).
"""


def run(arguments: Sequence[str]) -> int:
    """Runs a script and listens."""
    given = _parser().parse_args(arguments)
    if given.script[:1] == ["--"]:
        del given.script[0]
    if given.examine:
        from trueloop.cli.examine import run as examine

        return examine(given)
    from trueloop.doctor import settings as kept
    from trueloop.doctor.pages import codes
    from trueloop.doctor.ranks import leave_word, ranks
    from trueloop.doctor.script import Script
    from trueloop.doctor.script import run as run_script

    if given.module:
        script = Script(given.module[0], tuple(given.module[1:]), is_module=True)
    elif given.script:
        script = Script(given.script[0], tuple(given.script[1:]))
        if script.name.endswith(".ipynb"):
            raise ArgumentError(
                "expected a script to run, got a notebook: trueloop check reads it; in one of its cells, `with "
                "trueloop.doctor.listen.listening():` listens",
                file=script.name,
            )
        if os.path.isdir(script.name) and not os.path.isfile(os.path.join(script.name, "__main__.py")):
            raise ArgumentError(
                "expected a script to run, got a folder without a __main__.py: name the file in it", file=script.name
            )
    else:
        raise ArgumentError("expected a script to run, got none: trueloop doctor [flags] script.py [its own flags]")
    settings = kept.read(script.folder, codes()).flagged(
        {key: getattr(given, key) for key in ("select", "ignore", "fail_on", "show_passed", "max_steps", "max_seconds")}
    )
    rules = kept.Rules.chosen(codes(), settings.select, settings.ignore)
    own = ranks()
    output = output_file(given.output)
    _import_all(given.format)
    with place_for(given.format, output) as stream:

        def told(ran: Run) -> int:
            if own is not None and not own.tells:  # the first one's exit code is that of all
                leave_word(own, ran)
                return FAILED * ran.failed
            report = reported(ran, rules.speak, own)
            _tell(report, given.format, settings, output, stream)
            return FAILED if report.script and report.script["failed"] else FOUND * settings.fails(report.findings)

        def found(ran: Run) -> None:
            if own is not None and not own.tells:
                leave_word(own, ran)
            elif output is not None:  # so that something is there if the process is killed
                _tell(reported(ran, rules.speak, own), given.format, settings, output, None)

        return run_script(script, told, found=found, max_steps=settings.max_steps, max_seconds=settings.max_seconds)


def reported(ran: Run, speak: frozenset[str], own: Ranks | None = None) -> Report:
    """What there is to say of a run.

    Args:
        ran: the run, over or not.
        speak: the rules that are asked for, by name.
        own: this process among those that torchrun has started, if it has; it tells for all of them.
    """
    from trueloop.doctor import suppress
    from trueloop.doctor.by_reading import by_reading, read_in
    from trueloop.doctor.children import together
    from trueloop.doctor.output import Report, Sentence
    from trueloop.doctor.pages import codes
    from trueloop.doctor.precedence import nearest_to_the_cause
    from trueloop.doctor.ranks import not_heard, of_all, peers

    trace, over = ran.trace, ran.exit is not None
    children = [one for one in ran.children() if one.trains]
    others = {} if own is None else peers(own, ran, speak)
    theirs = [one.heard for one in others.values() if one.heard is not None and one.heard.trains]
    failed = ran.failed or any(one.failed for one in others.values())
    steps = max([0 if trace is None else trace.step, *(one.steps for one in (*children, *theirs))])
    heard = () if trace is None else trace.every_finding or trace.findings
    wanted = [finding for finding in heard if finding.name in speak]  # what is not asked for explains nothing
    findings = together(wanted, children, alone=trace is None or not trace.passes)
    if own is not None:
        findings = of_all(findings, own, others)
    complete = over and not failed and ran.stopped is None and trace is not None and steps > 0
    judged = {one.name for one in (*heard, *findings)}  # by the script's own process, or by one that it started
    judged |= {name for one in (*children, *theirs) for name, _ in one.passed}
    if trace is not None and steps:
        judged |= {rule.name for rule in trace.rules if _asked(rule.passed)}
    read = by_reading(ran.files if over else (), judged, trained=steps > 0)
    if those := [finding for finding in read.findings if finding.name in speak]:
        findings = nearest_to_the_cause([*findings, *those])
    left, back = suppress.apply(
        findings,
        ran.files if over else (),
        known=codes(),
        judged=speak if complete else (),
        also=read_in,
    )
    passed, unseen = [], [Sentence(None, note) for note in ran.notes]
    if read.unread:
        files = f"{read.unread} of the script's files were" if read.unread > 1 else "one of the script's files was"
        unseen.append(Sentence(None, f"{files} not read, for time: `trueloop check` reads all"))
    unseen += [Sentence(None, text) for text in not_heard(others, ran)]
    for child in children[:1]:  # the others are its like
        passed += [Sentence(*one) for one in child.passed if one[0] in speak]
        unseen += [Sentence(*one) for one in child.unseen if one[0] in speak]
    unseen += [Sentence(None, note) for note in dict.fromkeys(note for child in children for note in child.notes)]
    if trace is None and not ran.failed and not children:  # it may have failed before it came to that
        unseen.append(Sentence(None, "the script did not import torch: there was nothing to listen to"))
    elif trace is not None and over:
        unseen += [Sentence(None, note) for note in _unheard(trace, children, elsewhere=bool(ran.notes))]
        for rule in trace.rules if trace.step or not children else ():
            if rule.name in speak:
                passed += [Sentence(rule.name, text)] if (text := _asked(rule.passed)) else []
                unseen += [Sentence(rule.name, text)] if (text := _asked(rule.unseen)) else []
    spoken = {finding.name for finding in findings}
    passed = [one for one in passed if one.name not in spoken]
    return Report(
        findings=[finding for finding in left if finding.name in speak],
        kept_back=[finding for finding in back if finding.name in speak],
        passed=passed,
        unseen=unseen,
        steps=steps,
        script={
            "name": str(ran.script),
            "arguments": list(ran.script.arguments),
            "exit": ran.exit,
            "error": ran.error,
            "failed": failed,
            "ended": ran.stopped,
        },
        ended=ran.stopped or (f"the script failed ({_short(ran.error)})" if ran.error else None),
        over=over,
    )


def _unheard(trace: Any, children: Sequence[Heard], *, elsewhere: bool) -> Iterator[str]:
    """What the doctor could not hear, in sentences; ``elsewhere``: it may have happened where nobody listened."""
    yield from trace.notes
    if trace.compiled:
        yield "torch.compile is in use: what happens inside compiled code was not seen"
    for broken in trace.silenced:
        yield f"a rule broke and was left out, which is a defect of the doctor: {broken}"
    if children:
        return
    if trace.backwards == 0 and trace.step == 0 and (trace.compiled or trace.notes or elsewhere):
        yield "no training was heard: there was no backward and no optimizer step in what could be"
    elif trace.backwards == 0 and trace.step == 0:
        yield "the script trained nothing: there was no backward and no optimizer step"
    elif trace.step == 0:
        yield f"no optimizer step was seen ({trace.backwards} backward{'s' * (trace.backwards != 1)})"


def _short(error: str) -> str:
    line = error.partition("\n")[0]
    return line if len(line) <= 80 else f"{line[:79]}…"


def _asked(question: Any) -> str | None:
    try:
        answer: str | None = question()
    except Exception:  # a rule's last words must not cost the report
        return None
    return answer


# Where it goes


def _tell(report: Report, form: Format, settings: Settings, output: Path | None, stream: TextIO | None) -> None:
    from trueloop.doctor.output import screen, text, written

    if form == "text":
        colours, width = screen(stream if output is None else None)
        whole = text.write(report, colours=colours, width=width, show_passed=settings.show_passed)
    else:
        whole = written(report, form)
    put(whole, report, output, stream)


def put(whole: str, report: Report, output: Path | None, stream: TextIO | None) -> None:
    """Writes a report where it is wanted: to a file, of which the stream then gets a word; or to the stream.

    Where the file cannot be written, the stream gets the report after all.

    Args:
        whole: the report, written.
        report: what it says.
        output: the file; None for the stream.
        stream: None where nobody is to be told yet: what cannot be written anew later is left alone then.
    """
    from trueloop.doctor.output import counted

    told = whole
    if output is not None:
        try:
            if _is_replaced(output):
                _replace(Path(os.path.realpath(output)), whole)
            elif stream is not None:
                _write_through(output, whole)
            told = f"{report.command}: found {counted(report)}; written to {output}\n"
        except OSError as error:
            told = f"trueloop doctor: the report could not be written to {output}: {error.strerror or error}\n\n{whole}"
    if stream is not None:
        try:
            stream.write(told)
            stream.flush()
        except (OSError, ValueError) as error:
            with suppress(OSError):
                os.write(2, f"trueloop doctor: the report could not be written: {error}\n".encode())


def output_file(given: str | None) -> Path | None:
    """The file of ``--output``, absolute: the script may change the folder.

    Raises:
        ArgumentError: it is a folder, or its own folder does not exist.
    """
    if given is None:
        return None
    output = Path(given).absolute()
    if os.path.isdir(output):
        raise ArgumentError("expected a file to write the report to, got a folder: name a file in it", file=output)
    if not os.path.exists(output) and not os.path.isdir(os.path.dirname(os.path.realpath(output))):
        raise ArgumentError("expected a file in a folder that exists, got one in a folder that does not", file=output)
    return output


def _is_replaced(output: Path) -> bool:
    """Whether the file is made anew: a pipe and a device stay what they are, and so does what our streams write to."""
    return not os.path.exists(output) or (os.path.isfile(output) and _stream_to(output) is None)


def _stream_to(output: Path) -> int | None:
    """The stream of ours that ends in this file, as ``/dev/stdout`` does."""
    for stream in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(stream), output.stat()):
                return stream
    return None


def _replace(file: Path, whole: str) -> None:
    """All of it or nothing: whoever reads the file meanwhile sees the one before."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_text(whole, encoding="utf-8", errors="backslashreplace")
        os.replace(aside, file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _write_through(output: Path, whole: str) -> None:
    stream = _stream_to(output)
    place = os.open(output, os.O_WRONLY) if stream is None else os.dup(stream)  # dup: it goes on where the stream is
    with open(place, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(whole)


@contextmanager
def place_for(form: Format, output: Path | None) -> Iterator[TextIO]:
    """Where the report goes, kept apart from what the script prints.

    A format for machines has standard output to itself: what the script and its children print there goes to standard
    error. The place is a copy of the stream, which the script cannot close.
    """
    machine = form != "text" and output is None
    ours = os.fdopen(os.dup(1 if machine else 2), "w", encoding="utf-8", errors="backslashreplace")
    if machine:
        sys.stdout.flush()
        os.dup2(2, 1)
    with ours:
        yield ours


def _import_all(form: Format) -> None:
    """Imports what the report needs before the script's folder stands on the path: it may hold a ``json.py``."""
    from trueloop.doctor import precedence, suppress
    from trueloop.doctor.output import json, text

    assert all((precedence, suppress, json, text))
    if form != "text":
        from importlib import import_module

        import_module(f"trueloop.doctor.output.{form}")


def _parser() -> argparse.ArgumentParser:
    from trueloop.doctor.findings import LEVELS
    from trueloop.doctor.output import FORMATS
    from trueloop.doctor.settings import listed

    parser = argparse.ArgumentParser(
        prog="trueloop doctor",
        usage="trueloop doctor [FLAGS] (script.py | -m module | --examine RECIPE) [its own flags]",
        description=DESCRIPTION,
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, metavar="module", help="run a module")
    parser.add_argument("--examine", action="store_true", help="examine a recipe instead of running a script")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", metavar="FILE", help="write the report to a file")
    parser.add_argument("--fail-on", choices=LEVELS[::-1], help="the mildest level that sets the exit code 1 (warning)")
    parser.add_argument(
        "--select", type=listed, metavar="RULES", help="only these: names, codes or hundreds (3xx), by commas"
    )
    parser.add_argument("--ignore", type=listed, metavar="RULES", help="not these")
    parser.add_argument("--show-passed", action="store_true", help="tell what was checked and found right, too")
    parser.add_argument("--max-steps", type=int, metavar="N", help="end the script after so many optimizer steps")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="end it after so many seconds")
    parser.add_argument("script", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
