"""`trueloop doctor` beside other tools that look for mistakes in training, on one folder of scripts.

The scripts say in their headers which mistake they hold; see ``README.md`` of their folder. Recall: scripts whose
expected name a tool says, at any level; a peer's finding counts if it plausibly names the mistake (``MEANS`` in its
file). False alarms: correct scripts with a finding that the tool itself calls an error or a warning.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks import environment
from benchmarks.diagnosis import look as looking
from benchmarks.diagnosis import mldoct, store, torch_audit, torch_preflight, traincheck, trueloop
from benchmarks.diagnosis.case import Case, read_cases
from benchmarks.diagnosis.look import Look, Tool
from benchmarks.machine import ROOT, Disturbance, busy_seconds
from benchmarks.rounds import How, say
from benchmarks.table import table

TITLE = "7. Diagnosis of scripts"
FOLDER = ROOT.parent / "shared" / "cases"
OURS = looking.tool(trueloop)
PEERS = {tool.PACKAGE: tool for tool in map(looking.tool, (torch_preflight, torch_audit, mldoct, traincheck))}
SAMPLE = 8
"""Cost is taken on every eighth script: the plain run just before the tool's."""
LOUD = ("error", "warning")
KINDS: dict[str, Callable[[Case], bool]] = {
    "recall": lambda case: case.buggy,
    "recall, marked `run`": lambda case: "run" in case.ways,
    "marked `source`": lambda case: "source" in case.ways,
    "marked `run` only": lambda case: case.ways == {"run"},
}
"""Columns of recall: by how a mistake can be seen, says the script's header."""


COLUMNS: dict[str, Callable[[Iterable[float]], float]] = {
    "recall": max,
    "false alarms, share": min,
    "lines to edit": min,
    "× plain run": min,
    "× plain run, of tools that run the script": min,
}
"""What is compared, and which figure is best."""


@dataclass
class Told:
    """What one tool said of the scripts it was asked about."""

    tool: Tool
    version: str
    looks: Mapping[str, Look]
    missing: str = ""
    """Why there is nothing."""


@dataclass
class Diagnosis:
    """What all said."""

    cases: Sequence[Case]
    told: Sequence[Told]
    disturbance: Disturbance


def measure(how: How, folder: Path, ask: Sequence[str], minutes: float) -> Diagnosis:
    """Runs ours on all scripts, and a peer that is asked on those that it has not seen; of others, what is kept.

    A script of the sample for costs counts as not seen until its cost was taken. ``minutes`` is for each tool.
    """
    cases = read_cases(folder)
    if not cases:
        raise SystemExit(f"no scripts in {folder}: expected buggy/*.py and clean/*.py; name the folder with --cases")
    watch, sample = Disturbance(), {case.name for case in cases[::SAMPLE]}
    python, missing = environment.diagnosis_peers() if ask else (Path(), {})
    told = [Told(OURS, environment.version_of(how.ours, OURS.PACKAGE), {})]
    for package, tool in PEERS.items():
        asked = package in ask and package not in missing
        version, looks = store.load(package, environment.version_of(python, package) if asked else None)
        looks = {case.name: looks[case.name] for case in cases if case.name in looks}  # others are of `checking`
        rest = [case for case in cases if asked and not _seen(case, looks, sample)]
        for case, look in _looks(tool, rest[:2] if how.quick else rest, sample, python, watch, minutes):
            looks[case.name] = look
            if not how.quick:
                store.keep(package, version, case.name, look)
        told.append(
            Told(tool, version, looks, missing.get(package, "" if looks else f"not asked yet: --ask {package}"))
        )
    ours = dict(_looks(OURS, cases[:2] if how.quick else cases, sample, how.ours, watch, minutes))
    return Diagnosis(
        cases, [replace(told[0], looks={case.name: look for case, look in ours.items()}), *told[1:]], watch
    )


def section(result: Diagnosis) -> str:
    head = [
        "tool",
        *KINDS,
        "false alarms",
        "without advice on speed",
        "lines to edit",
        "× plain run",
        "CPU × plain run",
        "s a script",
    ]
    buggy = [case for case in result.cases if case.buggy]
    rows = [_row(told, result.cases) for told in result.told]
    reasons = "".join(f"\n- {told.tool.NAME}: {told.missing}" for told in result.told if told.missing)
    ways = "\n".join(
        f"- {told.tool.NAME} {told.version}: {told.tool.HOW}. To be written: {told.tool.EDITS}." for told in result.told
    )
    return f"""{len(buggy)} scripts with a mistake each and {len(result.cases) - len(buggy)} correct ones that look
suspicious. Recall: the expected name is among what a tool says, at any level; of a peer, any finding counts that
plausibly names the mistake, by the mapping in its file (`benchmarks/diagnosis/`). False alarms: correct scripts with a
finding that the tool itself calls an error or a warning. Cost: medians over every {SAMPLE}th script, each beside a
plain run just before it.

{_verdicts(result)}

{table(head, rows)}
{reasons}
{ways}

{_apart(result)}"""


def hit(case: Case, look: Look, tool: Tool) -> bool:
    """Whether the tool names the mistake of a script."""
    return any(name in case.names for said, _ in look.findings for name in (said, *tool.MEANS.get(said, ())))


def loud(look: Look, but: Container[str] = ()) -> bool:
    """Whether there is an error or a warning among what a tool says, apart from some findings."""
    return any(level in LOUD and name not in but for name, level in look.findings)


def _seen(case: Case, looks: Mapping[str, Look], sample: Container[str]) -> bool:
    look = looks.get(case.name)
    return look is not None and bool(look.plain or look.failed or case.name not in sample)


def _looks(
    tool: Tool, cases: Sequence[Case], sample: Container[str], python: Path, watch: Disturbance, minutes: float
) -> Iterator[tuple[Case, Look]]:
    """What a tool says of one script after the other, until the time is over."""
    until = time.monotonic() + 60 * minutes
    for number, case in enumerate(cases):
        if time.monotonic() > until:
            say(f"diagnosis: {tool.NAME}: time is over, {len(cases) - number} scripts left")
            return
        look = _look(tool, case, python, watch, beside_plain=case.name in sample)
        said = ", ".join(f"{level} {name}" for name, level in look.findings)
        verdict = (
            ("found" if hit(case, look, tool) else "MISSED") if case.buggy else "ALARM" if loud(look) else "silent"
        )
        say(
            f"diagnosis: {tool.NAME}: {case.name}: {verdict}: {look.failed or said or 'nothing'} ({look.seconds:.1f} s)"
        )
        yield case, look


def _look(tool: Tool, case: Case, python: Path, watch: Disturbance, beside_plain: bool) -> Look:
    """One script, in a folder that is thrown away."""
    before, started = busy_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        plain = None
        try:
            if beside_plain:
                alone = looking.run([python, shutil.copy(case.path, work)], work)
                plain = (round(alone.seconds, 2), round(alone.cpu, 2))
            shutil.copy(case.path, work)
            look = tool.look(case, python, work)
        except subprocess.TimeoutExpired as late:
            look = Look(failed=f"no answer within {late.timeout:.0f} s")
    after = busy_seconds()
    if before is not None and after is not None:
        watch.wall += time.monotonic() - started
        watch.others += max(0.0, after - before - look.cpu - (plain[1] if plain else 0.0))
    return replace(look, plain=plain)


def _row(told: Told, cases: Sequence[Case]) -> list[str]:
    """A line of the table."""
    if not told.looks:
        return [told.tool.NAME, told.missing, *[""] * 9]
    seen = [case for case in cases if case.name in told.looks]
    clean = [case for case in seen if not case.buggy and not told.looks[case.name].failed]
    alarms = sum(loud(told.looks[case.name]) for case in clean)
    plainly = sum(loud(told.looks[case.name], told.tool.ADVICE) for case in clean)
    walls, cpus = _costs(told)
    edits = [look.edits for look in told.looks.values() if not look.failed]
    seconds = [look.seconds for look in told.looks.values() if look.seconds and not look.failed]
    return [
        told.tool.NAME,
        *(_recall(told, [case for case in seen if kind(case)]) for kind in KINDS.values()),
        f"**{alarms}** of {len(clean)}",
        f"{plainly}",
        f"{median(edits):.0f}" if edits else "",
        f"**{median(walls):.2f}**" if walls else "",
        f"{median(cpus):.2f}" if cpus else "",
        f"{median(seconds):.1f}" if seconds else "",
    ]


def _costs(told: Told) -> tuple[list[float], list[float]]:
    """Wall and CPU time over those of the plain run, where there was one."""
    beside = [(look, look.plain) for look in told.looks.values() if look.plain and look.seconds and not look.failed]
    return [look.seconds / plain[0] for look, plain in beside], [look.cpu / plain[1] for look, plain in beside]


def _recall(told: Told, buggy: Sequence[Case]) -> str:
    hits = sum(hit(case, told.looks[case.name], told.tool) for case in buggy)
    return f"**{hits / len(buggy):.2f}** ({hits} of {len(buggy)})" if buggy else ""


def _verdicts(result: Diagnosis) -> str:
    """Whether ours is ahead in each column; of equals, a tie."""
    ours, *peers = [told for told in result.told if told.looks]
    if not peers:
        return "No peer has been asked yet."
    marks = [_marks(told, result.cases) for told in (ours, *peers)]
    lines = []
    for column, best in COLUMNS.items():
        rival = best(mark[column] for mark in marks[1:])
        mine = marks[0][column]
        word = "a tie" if mine == rival else "**ahead**" if best((mine, rival)) == mine else "**BEHIND**"
        who = ", ".join(told.tool.NAME for told, mark in zip(peers, marks[1:], strict=True) if mark[column] == rival)
        lines.append(f"- {word} in {column}: {mine:.2f}; the best peer has {rival:.2f} ({who})")
    return "\n".join(lines)


def _marks(told: Told, cases: Sequence[Case]) -> dict[str, float]:
    seen = [case for case in cases if case.name in told.looks]
    buggy = [case for case in seen if case.buggy]
    clean = [case for case in seen if not case.buggy and not told.looks[case.name].failed]
    walls, _ = _costs(told)
    return {
        "recall": round(sum(hit(case, told.looks[case.name], told.tool) for case in buggy) / max(1, len(buggy)), 3),
        "false alarms, share": round(sum(loud(told.looks[case.name]) for case in clean) / max(1, len(clean)), 3),
        "lines to edit": median([look.edits for look in told.looks.values() if not look.failed] or [0]),
        "× plain run": round(median(walls), 2) if walls else float("inf"),
        "× plain run, of tools that run the script": round(median(walls), 2)
        if walls and told.tool.RUNS
        else float("inf"),
    }


def _apart(result: Diagnosis) -> str:
    """What peers found and ours did not, our false alarms, and what a tool could not look at."""
    ours, *peers = result.told
    lines = []
    for case in result.cases:
        look = ours.looks.get(case.name)
        if look is None:
            continue
        finders = [
            told.tool.NAME for told in peers if case.name in told.looks and hit(case, told.looks[case.name], told.tool)
        ]
        if case.buggy and not hit(case, look, OURS):
            lines.append(f"- missed by ours: {case.name}; found by {', '.join(finders) or 'none'}")
        if not case.buggy and loud(look):
            lines.append(f"- false alarm of ours: {case.name}")
    for told in result.told:
        if told.looks and len(told.looks) < len(result.cases):
            lines.append(f"- {told.tool.NAME} has seen {len(told.looks)} of {len(result.cases)} scripts so far")
        failed = [name for name, look in told.looks.items() if look.failed and look.failed != "a reference"]
        if failed:
            lines.append(f"- {told.tool.NAME} could not look at {len(failed)}: {', '.join(sorted(failed))}")
        untimed = sum(not look.seconds and not look.failed for look in told.looks.values())
        if untimed:
            lines.append(
                f"- {told.tool.NAME}: on {untimed} scripts for its findings alone, to save time: forked from a process "
                "that had torch loaded, or all read in one run"
            )
    return "\n".join(sorted(lines))
