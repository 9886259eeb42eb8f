"""mldoct: ``mldoctor check`` reads the source, ``mldoctor watch`` runs the script and reads what it prints.

The third command of its README, ``diagnose``, wants a CSV of losses and gradient norms that these scripts do not write.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.look import Look, run

NAME = "mldoct"
PACKAGE = "mldoct"
HOW = (
    "`mldoctor check script.py`, then `mldoctor watch script.py`, findings of both, cost of both; `diagnose` wants a "
    "CSV of the run, which no script here writes"
)
EDITS = "none"
RUNS = True
MEANS = {
    "num_workers": ("loader-bound",),
    "missing_eval": ("evaluation-in-train-mode",),
    "oom_leak": ("retained-graph", "memory-grows"),
    "missing_zero_grad": ("missing-zero-grad",),
    "double_softmax": ("softmax-before-cross-entropy",),
    "missing_clip": ("exploding-gradients",),  # said of every script that does not clip; counted all the same
    "nan_inf": ("non-finite-value", "non-finite-input"),
    "loss_exploded": ("exploding-gradients", "learning-rate-too-high", "inputs-not-scaled", "non-finite-value"),
}
ADVICE = ("num_workers",)
_SAYS = {
    "bottleneck: num_workers=0": "num_workers",
    "model.eval() was not called": "missing_eval",
    "OOM Sentinel": "oom_leak",
    "without 'optimizer.zero_grad()'": "missing_zero_grad",
    "Double Softmax": "double_softmax",
    "No gradient clipping": "missing_clip",
}
_LEVELS = {"CRITICAL": "error", "ERROR": "error", "WARNING": "warning", "INFO": "note"}


def look(case: Case, python: Path, work: Path) -> Look:
    mldoctor = python.parent / "mldoctor"
    checked = run([mldoctor, "check", case.path.name], work)
    watched = run([mldoctor, "watch", case.path.name], work)
    return Look(read(checked.out, watched.out), checked.seconds + watched.seconds, checked.cpu + watched.cpu)


def read(checked: str, watched: str) -> list[tuple[str, str]]:
    """The findings of both commands, from what they print."""
    findings = []
    for level, message in re.findall(r"│ (CRITICAL|ERROR|WARNING|INFO) +│ (.*?) │", checked):
        name = next((name for words, name in _SAYS.items() if words in message), message)
        findings.append((name, _LEVELS[level]))
    if "CRITICAL INSTABILITY DETECTED" in watched:
        findings.append(("nan_inf", "error"))
    if "Loss value exploded" in watched:
        findings.append(("loss_exploded", "warning"))
    return findings
