"""torch-preflight reads the source: ``torch-preflight check train.py``."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.look import Look, run

NAME = "torch-preflight"
PACKAGE = "torch-preflight"
HOW = "`torch-preflight check --format json script.py`, its defaults"
EDITS = "none"
RUNS = False
MEANS = {
    "TG001": ("retained-graph", "memory-grows"),  # graph retention
    # Evaluation without no_grad: also where "evaluation" takes steps, since the place is the right one.
    "TG002": ("evaluation-builds-graph", "training-on-validation-data"),
    "TG003": ("missing-zero-grad",),
    "TG004": ("loader-bound",),  # a DataLoader that starves the device
    "TG005": ("softmax-before-cross-entropy", "logits-in-probability-loss"),
    "TG006": ("sigmoid-before-bce-with-logits", "logits-in-probability-loss"),
    "TG007": ("sync-every-step",),
    "TG008": ("not-seeded",),
    "TG011": ("training-in-eval-mode",),
    "TG012": ("no-distributed-sampler", "sampler-epoch-not-set"),
    "TG014": ("accumulation-not-divided", "loss-divided-after-backward"),
}
ADVICE = ("TG004", "TG007", "TG013")


def look(case: Case, python: Path, work: Path) -> Look:
    ended = run([python.parent / "torch-preflight", "check", "--format", "json", "--jobs", "1", case.path.name], work)
    try:
        diagnostics = json.loads(ended.out[ended.out.index("{") :])["diagnostics"]
    except ValueError:
        return Look(failed=(ended.out.strip().splitlines() or ["no report"])[-1][:150])
    return Look([(found["code"], found["severity"]) for found in diagnostics], ended.seconds, ended.cpu)
