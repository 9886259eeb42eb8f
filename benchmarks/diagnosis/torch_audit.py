"""torch-audit runs inside the script: ``autopatch`` beside the optimizer, its README's way with the fewest edits."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.diagnosis.case import Case, places
from benchmarks.diagnosis.look import Look, run

NAME = "torch-audit"
PACKAGE = "torch-audit"
HOW = (
    "`autopatch(model, optimizer=…)` after each optimizer, `every_n_steps=1`: with its README's 1000 it would look at "
    "the first step of such short scripts alone; JSONReporter in place of ConsoleReporter"
)
EDITS = "2 imports; for each optimizer `autopatch(…)` and `finish`; its `unpatch` left out"
RUNS = True
_DATA = ("inputs-not-scaled", "preprocessing-differs", "non-finite-input")
_NO_GRADIENT = (
    "parameters-without-gradient",
    "parameters-not-optimized",
    "stale-optimizer",
    "detached-loss",
    "training-under-no-grad",
    "gradients-zeroed-before-step",
    "step-before-backward",
    "weights-do-not-move",
)
MEANS = {
    "TA100": ("non-finite-value", "non-finite-input", "exploding-gradients", "learning-rate-too-high"),
    "TA102": ("exploding-gradients", "learning-rate-too-high", "inputs-not-scaled", "missing-zero-grad"),
    "TA103": ("dead-units", "saturated-activations", "vanishing-gradients", "symmetric-initialisation"),
    "TA104": _NO_GRADIENT,
    "TA105": ("dead-units", "saturated-activations", "symmetric-initialisation"),
    "TA301": _DATA,
    "TA302": (*_DATA, "degenerate-targets"),
    "TA303": ("reshape-instead-of-transpose",),
    "TA304": ("batch-of-one-with-batchnorm",),
    "TA305": ("non-finite-input", "targets-out-of-range"),
    "TA405": ("dead-units", "symmetric-initialisation"),
    "TA500": _NO_GRADIENT,  # a layer that never runs
    "TA501": ("batch-samples-mix", "frozen-batchnorm-moves"),  # a stateful layer that runs twice
}
ADVICE = ("TA200", "TA201", "TA203")
_LEVELS = {"ERROR": "error", "WARN": "warning", "INFO": "note"}


def look(case: Case, python: Path, work: Path) -> Look:
    source, edits = edited(case.path.read_text())
    if not edits:
        return Look(failed="no optimizer of a module to give it")
    script = work / case.path.name
    script.write_text(source)
    ended = run([python, script.name], work)
    reports = sorted(work.glob("audit-*.json"))
    if not reports:
        return Look(failed=(ended.out.strip().splitlines() or ["no report"])[-1][:150])
    findings = [found for report in reports for found in json.loads(report.read_text())["findings"]]
    seen = [(found["rule_id"], _LEVELS[found["severity"]]) for found in findings]
    return Look(sorted(set(seen)), ended.seconds, ended.cpu, edits)


def edited(source: str) -> tuple[str, int]:
    """The script with its auditors, and how many lines that took; 0 where there is nothing to audit.

    Example:
        >>> source, edits = edited("opt = torch.optim.SGD(net.parameters(), lr=0.1)\\n")
        >>> edits
        4
        >>> "autopatch(net, optimizer=opt" in source
        True
    """
    spots = sorted(places(source), key=lambda place: -place.line)
    lines = source.splitlines()
    for place in spots:
        # finish() at exit, so that a script that dies is reported too: it counts as the README's line at the end.
        name = f"audit-{place.line}-{{__import__('time').time_ns()}}.json"
        call = (
            f"_auditor = autopatch({place.model}, optimizer={place.optimizer}, every_n_steps=1, "
            f"reporters=[JSONReporter(f{name!r})], fail_level='ERROR', run_static=True, run_init=True)"
        )
        lines[place.line : place.line] = [
            place.indent + call,
            place.indent + "__import__('atexit').register(_auditor.finish, report=True)",
        ]
    if not spots:
        return source, 0
    head = "from torch_audit import autopatch; from torch_audit.reporters.json import JSONReporter"
    after = _future(lines)
    lines[after:after] = [head]
    return "\n".join(lines) + "\n", 2 + 2 * len(spots)


def _future(lines: list[str]) -> int:
    """Behind the last ``from __future__``."""
    return max((number for number, line in enumerate(lines, 1) if line.startswith("from __future__")), default=0)
