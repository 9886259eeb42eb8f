"""`trueloop check` beside the other tools on PyPI that read training scripts, on the same scripts.

The scripts say in their headers which mistake they hold; those count whose mistake can be read (``source``), and all
correct ones. Each tool reads all scripts in one call, with its defaults. Recall: scripts whose mistake a tool names, at
any level; a peer's finding counts if its description means the mistake (``MEANS``). False alarms: correct scripts with
a finding that the tool itself calls an error or a warning.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import environment
from benchmarks.cases.diagnosis import loud
from benchmarks.diagnosis import store, torch_preflight
from benchmarks.diagnosis.case import Case, read_cases
from benchmarks.diagnosis.look import Look, run
from benchmarks.machine import ROOT
from benchmarks.rounds import How, say
from benchmarks.table import table

TITLE = "10. The check beside its peers"
OWN_CASES = ROOT / "tests" / "doctor" / "cases"

MEANS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "torch-preflight": torch_preflight.MEANS,
    "torchfix": {
        "TOR002": ("parameters-without-gradient", "parameters-not-optimized"),  # `require_grad`: likely misspelt
        "TOR106": ("non-finite-value",),  # log(1 + x) in place of log1p(x)
        "TOR107": ("non-finite-value",),  # exp(x) - 1 in place of expm1(x)
        "TOR102": ("unsafe-load",),  # torch.load without weights_only
        "TOR401": ("loader-bound",),  # a DataLoader that works in the training's own process
        # the others are about names that are deprecated, removed, private or moved
    },
}
"""By tool and the tool's own name of a finding: the rules whose mistake its description means."""


class Reader(NamedTuple):
    """A tool that reads: its names, its call (from its Python and a folder), and what its answer says.

    The answer is read as rows of a script's file, the tool's own name of a finding, and its level.
    """

    name: str
    package: str
    how: str
    call: Callable[[Path, Path], list[str | Path]]
    rows: Callable[[str], list[tuple[str, str, str]]]


def _ours(out: str) -> list[tuple[str, str, str]]:
    return [(found["file"], found["name"], found["level"]) for found in json.loads(out)["findings"]]


def _torch_preflight(out: str) -> list[tuple[str, str, str]]:
    told = json.loads(out[out.index("{") :])["diagnostics"]
    return [(found["path"], found["code"], found["severity"]) for found in told]


def _torchfix(out: str) -> list[tuple[str, str, str]]:
    """Lines ``file:line:column: CODE [*] message``; it knows no levels, and its findings fail a build."""
    found = re.findall(r"(?m)^(.+?):\d+:\d+: (TOR\d+)\b", out)
    return [(file, code, "warning") for file, code in found]


OURS = Reader(
    "**trueloop check**",
    "trueloop",
    "`trueloop check --format json FOLDER`; no mapping: the finding must have the expected name",
    lambda python, folder: [python.parent / "trueloop", "check", "--no-cache", "--jobs", "1", "--format=json", folder],
    _ours,
)
PEERS = (
    Reader(
        "torch-preflight",
        "torch-preflight",
        "`torch-preflight check --format json FOLDER`, its defaults",
        lambda python, folder: [
            python.parent / "torch-preflight",
            "check",
            "--format",
            "json",
            "--jobs",
            "1",
            folder,
        ],
        _torch_preflight,
    ),
    Reader(
        "TorchFix",
        "torchfix",
        "`torchfix FOLDER`, its defaults",
        lambda python, folder: [python.parent / "torchfix", folder],
        _torchfix,
    ),
)


@dataclass
class Told:
    """What one tool said of each script, by its name; and why there is nothing, if so."""

    reader: Reader
    version: str
    looks: Mapping[str, Look]
    missing: str = ""
    seconds: float = 0.0
    """For all scripts, where it was asked now."""


@dataclass
class Checking:
    """The scripts, and what all said of them."""

    cases: Sequence[Case]
    told: Sequence[Told]


def measure(how: How, folder: Path, ask: Sequence[str]) -> Checking:
    """Has ours read all scripts, and a peer that is asked those that it has not seen; of others, what is kept."""
    cases = [
        case
        for cases in (folder, OWN_CASES)
        for case in read_cases(cases)
        if not case.buggy or "source" in case.ways  # the others' mistakes only show when they run
    ]
    python, missing = environment.diagnosis_peers() if ask else (Path(), {})
    told = [_asked(OURS, cases, how.ours, environment.version_of(how.ours, OURS.package))]
    for reader in PEERS:
        asked = reader.package in ask and reader.package not in missing
        version, looks = store.load(reader.package, environment.version_of(python, reader.package) if asked else None)
        rest = [case for case in cases if case.name not in looks]
        if asked and rest:
            now = _asked(reader, rest, python, version).looks
            for name, look in () if how.quick else now.items():
                store.keep(reader.package, version, name, look)
            looks |= now
        known = {case.name: looks[case.name] for case in cases if case.name in looks}
        why = missing.get(reader.package, "" if known else f"not asked yet: --ask {reader.package}")
        told.append(Told(reader, version, known, why))
    return Checking(cases, told)


def section(result: Checking) -> str:
    head = ["tool", "recall", "of the kinds of mistakes that it names", "false alarms", "scripts"]
    buggy = [case for case in result.cases if case.buggy]
    ways = "\n".join(f"- {told.reader.name} {told.version}: {told.reader.how}." for told in result.told)
    reasons = "".join(f"\n- {told.reader.name}: {told.missing}" for told in result.told if told.missing)
    return f"""{len(buggy)} scripts with a mistake that can be read, of {len({_kind(case) for case in buggy})} kinds,
and {len(result.cases) - len(buggy)} correct ones that look suspicious; none is run. Recall: the expected name is among
what a tool says, at any level; of a peer, any finding counts whose description means the mistake (`MEANS` in
`benchmarks/cases/checking.py`). False alarms: correct scripts with a finding that the tool itself calls an error or a
warning.

{_verdicts(result)}

{table(head, [_row(told, result.cases) for told in result.told])}
{reasons}
{ways}

{_apart(result)}"""


def hit(case: Case, look: Look, package: str) -> bool:
    """Whether a tool names the mistake of a script."""
    means = MEANS.get(package, {})
    return any(name in case.names for said, _ in look.findings for name in (said, *means.get(said, ())))


def _asked(reader: Reader, cases: Sequence[Case], python: Path, version: str) -> Told:
    """What a tool says of all scripts in one call, in a folder that is thrown away."""
    say(f"checking: {reader.name} reads {len(cases)} scripts")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for case in cases:
            (work / case.name).parent.mkdir(exist_ok=True)
            shutil.copy(case.path, work / f"{case.name}.py")
        ended = run(reader.call(python, work), work, patience=1800.0)
    looks = {case.name: Look() for case in cases}
    for file, name, level in reader.rows(ended.out):
        script = f"{Path(file).parent.name}/{Path(file).stem}"
        looks[script] = Look(sorted({*looks[script].findings, (name, level)}))
    return Told(reader, version, looks, seconds=ended.seconds)


def _figures(told: Told, cases: Sequence[Case]) -> tuple[int, int, int, int]:
    """Mistakes found, of how many; false alarms, of how many."""
    seen = [case for case in cases if case.name in told.looks]
    buggy = [case for case in seen if case.buggy]
    hits = sum(hit(case, told.looks[case.name], told.reader.package) for case in buggy)
    alarms = sum(loud(told.looks[case.name]) for case in seen if not case.buggy)
    return hits, len(buggy), alarms, len(seen) - len(buggy)


def _kind(case: Case) -> str:
    return case.path.stem.partition("--")[0]


def _row(told: Told, cases: Sequence[Case]) -> list[str]:
    if not told.looks:
        return [told.reader.name, told.missing, "", "", ""]
    hits, buggy, alarms, clean = _figures(told, cases)
    kinds = {_kind(case) for case in cases if case.buggy}
    named = {
        _kind(case)
        for case in cases
        if case.buggy and case.name in told.looks and hit(case, told.looks[case.name], told.reader.package)
    }
    return [
        told.reader.name,
        f"**{hits / max(1, buggy):.2f}** ({hits} of {buggy})",
        f"{len(named)} of {len(kinds)}",
        f"**{alarms}** of {clean}",
        f"{len(told.looks)}",
    ]


def _verdicts(result: Checking) -> str:
    """Whether the goal is reached: more than twice the peers' recall at fewer false alarms."""
    ours, *peers = result.told
    hits, buggy, alarms, _ = _figures(ours, result.cases)
    lines = []
    for told in (peer for peer in peers if peer.looks):
        theirs, of, loudly, _ = _figures(told, result.cases)
        mine, other = hits / max(1, buggy), theirs / max(1, of)
        word = "**reached**" if mine > 2 * other else "**MISSED**"
        lines.append(f"- {word} recall beside {told.reader.name}'s: {mine:.2f} to {other:.2f} (goal: more than twice)")
        word = "**reached**" if alarms < loudly else "a tie" if alarms == loudly == 0 else "**MISSED**"
        lines.append(f"- {word} false alarms beside {told.reader.name}'s: {alarms} to {loudly} (goal: fewer)")
    return "\n".join(lines) or "No peer has been asked yet."


def _apart(result: Checking) -> str:
    """What ours missed, with who found it, and its false alarms."""
    ours, *peers = result.told
    lines = []
    for case in result.cases:
        look = ours.looks[case.name]
        finders = [
            told.reader.name
            for told in peers
            if case.name in told.looks and hit(case, told.looks[case.name], told.reader.package)
        ]
        if case.buggy and not hit(case, look, OURS.package):
            lines.append(f"- missed by ours: {case.name}; found by {', '.join(finders) or 'none'}")
        if not case.buggy and loud(look):
            lines.append(f"- false alarm of ours: {case.name}")
    lines += [
        f"- {told.reader.name} has seen {len(told.looks)} of {len(result.cases)} scripts so far"
        for told in peers
        if told.looks and len(told.looks) < len(result.cases)
    ]
    return "\n".join(sorted(lines))
