"""What the doctor costs: a script under ``trueloop doctor`` beside the plain one, a Trainer with it and without."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from benchmarks.machine import ROOT, Disturbance
from benchmarks.rounds import Failed, How, Pool, Rounds, Variant, interleaved
from benchmarks.table import failures, table, verdict

TITLE = "8. What the doctor costs"
SMALLEST, CNN, TINY_MICROSECONDS, SHARE = 1.5, 1.10, 10.0, 0.01
"""Goals: ratios of whole runs of a script; of a step in our trainer, averaged over an epoch that is not the first."""
SCRIPTS = {"smallest": 6000, "cnn": 500}
EPOCHS = {"tiny": 4, "cnn": 4}
STEPS = {"tiny": 1000, "cnn": 50}


def measure(how: How, pool: Pool) -> Rounds:
    """A fresh process each time."""

    def ask(variant: Variant, watch: Disturbance | None) -> dict[str, float]:
        kind, name, doctor = variant.name.split(", ")
        if kind == "script":
            return _script(name, doctor == "doctor", how.ours, pool.threads, 600 if how.quick else SCRIPTS[name])
        return _trainer(name, doctor, how.ours, pool.threads)

    names = [f"script, {name}, {how_}" for name in SCRIPTS for how_ in ("plain", "doctor")]
    names += [f"Trainer, {name}, {how_}" for name in EPOCHS for how_ in ("off", "on")]
    return interleaved([how.variant(name, name) for name in names], ask, how, "doctor")


def section(results: Mapping[int, Rounds], how: How) -> str:
    rows, goals = [], []
    for threads, one in sorted(results.items()):
        for name, steps in SCRIPTS.items():
            plain, heard = f"script, {name}, plain", f"script, {name}, doctor"
            if plain in one.figures and heard in one.figures:
                whole, loop = one.ratio(heard, plain, "s"), one.ratio(heard, plain, "loop")
                seconds = [f"{one.middle(which, 's'):.2f}" for which in (plain, heard)]
                rows.append([f"{name}, {steps} steps", str(threads), *seconds, f"{whole:.2f}", f"{loop:.2f}"])
                goal = SMALLEST if name == "smallest" else CNN
                goals.append(verdict(f"{name}, {threads} threads, whole run", whole, goal, " x"))
        for name in EPOCHS:
            off, on = f"Trainer, {name}, off", f"Trainer, {name}, on"
            if off in one.figures and on in one.figures:
                without, step = one.middle(off, "us"), one.middle(on, "us")
                first = one.middle(on, "first")
                figures = [f"{without:.0f}", f"{step:.0f}", f"{step / without:.3f}", f"first epoch {first:.0f}"]
                rows.append([f"Trainer, {name}, us a step", str(threads), *figures])
                more = one.difference(on, off, "us")
                limit = TINY_MICROSECONDS if name == "tiny" else SHARE * without
                goals.append(verdict(f"Trainer, {name}, {threads} threads, more a step", more, limit, " us"))
    head = ["run", "threads", "plain", "with the doctor", "ratio", "ratio in the loop"]
    return f"""Scripts by hand, as whole processes (their imports with them) and by their loop alone, whose first 150
steps are all heard; our trainer by the epoch, the first of which pays for the first look.

{chr(10).join(goals)}

{table(head, rows)}
{failures(results)}"""


def _script(name: str, doctor: bool, python: Path, threads: int, steps: int) -> dict[str, float]:
    script = str(ROOT / "benchmarks" / "scripts" / f"{name}.py")
    way = ["-m", "trueloop", "doctor", "--output", os.devnull, "--fail-on", "error"] if doctor else []
    seconds, said = _run([str(python), *way, script, str(steps)], threads)
    return {"s": seconds, "loop": float(said.split()[-1])}


def _trainer(name: str, doctor: str, python: Path, threads: int) -> dict[str, float]:
    script = str(ROOT / "benchmarks" / "scripts" / "in_trainer.py")
    _, said = _run([str(python), script, name, doctor, str(EPOCHS[name])], threads)
    epochs = [float(word) / STEPS[name] * 1e6 for word in said.split()]
    return {"first": epochs[0], "us": median(epochs[1:])}


def _run(command: list[str], threads: int) -> tuple[float, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT / "src")}
    started = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - started
    if ended.returncode != 0:
        words = ended.stderr.strip().splitlines()
        raise Failed(f"{' '.join(command)[:80]}: exit code {ended.returncode}: {words[-1] if words else ''}")
    return seconds, ended.stdout
