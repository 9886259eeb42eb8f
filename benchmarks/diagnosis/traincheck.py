"""TrainCheck learns invariants from runs that are known to be good and checks another run against them: four commands.

Its README: collect a trace of a reference, infer, collect a trace of the target, check. The reference is one of the
clean cases, an ordinary classifier with training and validation, of which it is then not asked. Its guide advises
several against noise; from three, the inference did not end within a quarter of an hour on a busy machine.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.diagnosis.case import Case, places
from benchmarks.diagnosis.look import Look, Ran, run

NAME = "TrainCheck"
PACKAGE = "traincheck"
REFERENCES = ("class-weights-and-train-report",)
HOW = (
    "`traincheck-collect` and `traincheck-infer` once, on a clean case as reference ("
    + ", ".join(REFERENCES)
    + ", not asked of; about 3 minutes), then `traincheck-collect --models-to-track … --invariants …` and "
    "`traincheck-check` for each script, whose costs are counted; broken FunctionLead and FunctionCover invariants are "
    "notes, since its tutorial says to ignore them, all others are errors"
)
EDITS = "none, but a known-good reference to learn from, and the model's variable named to each of 4 commands"
RUNS = True
_NO_UPDATE = (
    "weights-do-not-move",
    "stale-optimizer",
    "parameters-not-optimized",
    "parameters-without-gradient",
    "detached-loss",
    "training-under-no-grad",
    "missing-optimizer-step",
    "gradients-zeroed-before-step",
    "step-before-backward",
    "learning-rate-too-low",
    "missing-zero-grad",
)
_LOADING = ("same-order-every-epoch", "sampler-epoch-not-set", "training-data-not-shuffled", "same-batch-every-step")
MEANS = {
    # By what the broken invariant speaks of, whatever it says of it: an order, a call left out, a missing effect.
    "zero_grad": (*_NO_UPDATE, "accumulation-not-divided"),
    "step": (*_NO_UPDATE, "clip-out-of-order", "accumulation-not-divided", "scaler-misused"),
    "backward": (*_NO_UPDATE, "retained-graph"),
    "parameter": (*_NO_UPDATE, "exploding-gradients", "vanishing-gradients", "non-finite-value"),
    "graph": ("training-under-no-grad", "detached-loss", "evaluation-builds-graph", "parameters-without-gradient"),
    "mode": ("evaluation-in-train-mode", "training-in-eval-mode", "frozen-batchnorm-moves", "dropout-always-on"),
    "loss": (
        "broadcast-loss",
        "arguments-exchanged",
        "targets-out-of-range",
        "logits-in-probability-loss",
        "regression-loss-on-classes",
        "softmax-over-one-value",
        "loss-is-constant",
    ),
    "softmax": ("softmax-before-cross-entropy", "softmax-over-one-value", "argmax-over-wrong-dimension"),
    "sigmoid": ("sigmoid-before-bce-with-logits", "output-range-too-small"),
    "scheduler": ("scheduler-out-of-order", "scheduler-wrong-cadence"),
    "clip": ("clip-out-of-order",),
    "scaler": ("scaler-misused",),
    "loading": _LOADING,
}
ADVICE: tuple[str, ...] = ()
# The first that fits. That forward calls other layers says only that the model is not the reference's.
_SPEAKS_OF = (
    ("layers", r"forward\(\) (always )?calls"),
    ("zero_grad", "zero_grad"),
    ("scheduler", r"lr_scheduler|LRScheduler|ReduceLROnPlateau"),
    ("clip", "clip_grad"),
    ("scaler", "GradScaler|grad_scaler"),
    ("backward", "backward"),
    ("parameter", r"Parameter\."),
    ("step", r"\.step\(\)"),
    ("mode", r"\.(train|eval)\(\)|training"),
    ("graph", "grad_fn|requires_grad|grad_enabled|no_grad"),
    ("loss", "[Ll]oss|cross_entropy"),
    ("softmax", "[Ss]oftmax"),
    ("sigmoid", "[Ss]igmoid"),
    ("loading", "randperm|Sampler|DataLoader|manual_seed"),
    ("other", ""),
)
_IGNORED = {"FunctionLeadRelation", "FunctionCoverRelation"}


def look(case: Case, python: Path, work: Path) -> Look:
    if case.path.parent.name == "clean" and case.path.stem in REFERENCES:
        return Look(failed="a reference")
    invariants = _invariants(python, case.path.parent.parent / "clean")
    traced = _collect(python, case.path, work, "--invariants", str(invariants))
    checked = run([python.parent / "traincheck-check", "-f", "trace", "-i", invariants, "-o", "checked"], work)
    summary = work / "checked" / "trace" / "violations_summary.json"
    if not summary.exists():
        words = (checked.out.strip() or traced.out.strip() or "no report").splitlines()
        return Look(failed=words[-1][:150])
    findings = {
        (speaks_of(broken["display_name"]), "note" if broken["relation_type"] in _IGNORED else "error")
        for broken in json.loads(summary.read_text())["violations"]
    }
    return Look(sorted(findings), traced.seconds + checked.seconds, traced.cpu + checked.cpu)


def speaks_of(invariant: str) -> str:
    """What an invariant is about, by the words it is shown with.

    Example:
        >>> speaks_of("Optimizer.zero_grad() always precedes Adam.step()")
        'zero_grad'
    """
    return next(name for name, words in _SPEAKS_OF if re.search(words, invariant))


def _invariants(python: Path, clean: Path) -> Path:
    """Learns them, once an environment: minutes."""
    folder = python.parent.parent / "traincheck"
    learned = folder / "invariants.json"
    if learned.exists():
        return learned
    folder.mkdir(exist_ok=True)
    started = time.monotonic()
    for name in REFERENCES:
        shutil.rmtree(folder / name, ignore_errors=True)
        work = folder / f"{name}.work"
        work.mkdir(exist_ok=True)
        _collect(python, Path(shutil.copy(clean / f"{name}.py", work)), work)
        (work / "trace").rename(folder / name)
    run([python.parent / "traincheck-infer", "-f", *REFERENCES, "-o", "being-made.json"], folder, patience=3600.0)
    (folder / "being-made.json").rename(learned)
    (folder / "seconds.txt").write_text(f"{time.monotonic() - started:.0f}")
    return learned


def _collect(python: Path, script: Path, work: Path, *more: str) -> Ran:
    """Runs a script under the tracer; without its model, where the tracer cannot find the variable."""
    source = script.read_text()
    models = [spot.model for spot in places(source) if re.search(rf"(?m)^\s*{re.escape(spot.model)}\s*=", source)]
    track = ["--models-to-track", *dict.fromkeys(models)] if models else []
    target = work / script.name
    command: list[str | Path] = [
        python.parent / "traincheck-collect",
        "--pyscript",
        target,
        *track,
        *more,
        "--output-dir",
        work / "trace",
    ]
    try:
        return run(command, work)
    except subprocess.TimeoutExpired as late:
        return Ran(1, "too long", float(late.timeout), float(late.timeout))  # what was traced by then is checked
