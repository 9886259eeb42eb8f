"""Several processes: a step against torch's DDP and FSDP2 by hand, what travels, and what that would be on many."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, Disturbance, busy_seconds
from benchmarks.rounds import Failed, How, Pool, Rounds, Variant, interleaved
from benchmarks.table import table, verdict

TITLE = "11. Several processes"
GOAL = 1.03
SETS = tuple(
    (f"by hand, {engine}", f"by hand, {engine}, freed memory kept", f"trueloop, {engine}")
    for engine in ("DDP", "FSDP2")
)
WORKS = {
    "cnn": "the CNN of section 2, 64 samples a process",
    "tiny": "an MLP 32-32-32, 8 samples a process: what a step costs besides its arithmetic",
}
PROCESSES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SMALL_SUMS = 2
"""Trueloop's own sums of a few numbers in a step: the counts travel in the forward pass, stops in the next step."""


@dataclass
class Result:
    """What was measured."""

    rounds: Rounds
    found: dict[str, Any]


def measure(how: How, pool: Pool) -> Result:
    """Two processes with one thread each, started anew for each variant and round (``processes.py``)."""

    def ask(variant: Variant, watch: Disturbance | None) -> dict[str, float]:
        took = _launched(how, variant.name, 2, watch)
        return {f"{figure} {work}": value for work, of in took.items() for figure, value in of.items()}

    variants = [how.variant(name, "benchmarks.processes") for names in SETS for name in names]
    rounds = interleaved(variants, ask, how, "scale")
    for name, why in rounds.failed.items():
        raise Failed(f"{name}: {why}")
    return Result(rounds, {"alone": _launched(how, "alone", 1), **_launched(how, "counted", 2)})


def _launched(how: How, asked: str, processes: int, watch: Disturbance | None = None) -> Any:
    with tempfile.TemporaryDirectory(prefix="trueloop-bench-") as name:
        out = Path(name, "found.json")
        start = [str(how.ours), "-m"]
        if processes > 1:
            start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        started, before, mine = time.perf_counter(), busy_seconds(), os.times()
        ended = subprocess.run(
            [*start, "benchmarks.processes", str(out), asked, "quick" if how.quick else "whole"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            capture_output=True,
            text=True,
        )
        after, ours = busy_seconds(), os.times()
        if not out.exists():  # a bare loop may be aborted at its end, by gloo (docs/log.md): its figures stand
            words = ended.stderr.strip().splitlines()
            raise Failed(f"{asked}: {words[-1][:200] if words else 'no last words'}")
        if watch is not None and before is not None and after is not None:
            own = ours.children_user + ours.children_system - mine.children_user - mine.children_system
            watch.others += max(0.0, after - before - own)
            watch.wall += time.perf_counter() - started
        return json.loads(out.read_text())


def section(results: Mapping[int, Result], how: How) -> str:
    one = next(iter(results.values()))
    found, rounds = one.found, one.rounds
    goals = [
        verdict(f"a step of the CNN, {ours}, against {bare}", rounds.ratio(ours, bare, "s cnn"), GOAL)
        for bare, _, ours in SETS
    ]
    return f"""Two processes of one thread each, gloo on one machine's loopback; SGD at 1e-3, the same pre-gathered
batches. trueloop is `Trainer.train` with nobody watching; by hand is torch's engine and nothing around the arithmetic.
Each variant of a round has processes of its own. A figure is that of the slower process, and of steps in the middle of
an epoch: what the doctor's listening to the first 8 and the last 2 costs is in section 8. "Freed memory kept" is the
loop by hand with the one setting that trueloop makes on the CPU (`memory.py`): what trueloop costs is beside that line,
and what it saves as well is beside the first.

{chr(10).join(goals)}

{_steps(rounds)}

What is handed to collectives in a step, counted by a `TorchDispatchMode`, with theory beside it: 4 bytes a parameter
for DDP, three times as many for FSDP2 (two gathers and a sum); buffers come on top. Sums of at most 64 bytes are
counted apart: trueloop's are the counts of all processes, which travel in the forward pass, whether anybody is to
stop, which is known one step later, and with FSDP2 the loss, in the backward pass; with DDP it goes with the gradients.

{_sent(found)}

{_simulated(found, rounds)}"""


def _steps(rounds: Rounds) -> str:
    rows = []
    for work, about in WORKS.items():
        for names in SETS:
            for name in names:
                bold = "**" if name == names[-1] else ""
                rows.append(
                    [
                        f"{about.partition(',')[0]}: {bold}{name}{bold}",
                        f"{rounds.middle(name, f's {work}') * 1e3:,.2f}",
                        f"{rounds.difference(name, names[0], f's {work}') * 1e6:+,.0f}",
                        f"**{rounds.ratio(name, names[0], f's {work}'):.2f}**",
                        f"{rounds.ratio(name, names[0], f'cpu {work}'):.2f}",
                    ]
                )
    return table(["step", "ms", "µs over by hand", "× by hand", "CPU × by hand"], rows)


def _sent(found: Mapping[str, Any]) -> str:
    rows = []
    for work in WORKS:
        parameters = found["parameters"][work]
        for name, sent in found["sent"][work].items():
            theory = parameters * 4 * (3 if "FSDP" in name else 1)
            rows.append(
                [
                    f"{work}, {name}",
                    f"{sent['bytes']:,.0f}",
                    f"{theory:,}",
                    f"{sent['bytes'] / theory:.4f}",
                    f"{sent['sums']:.0f}",
                    f"{sent['small']:.0f}",
                ]
            )
    return table(["step", "bytes", "theory", "÷", "collectives", "small ones"], rows)


def _simulated(found: Mapping[str, Any], rounds: Rounds) -> str:
    step, network = found["alone"], found["network"]
    sent = found["parameters"]["cnn"] * 4
    latency = network["small"] / 2  # a ring of two takes two turns
    bandwidth = network["bytes"] / (network["large"] - network["small"])  # 2 (N-1)/N is 1 for two
    rows = []
    for processes in PROCESSES:
        turns = 2 * (processes - 1)
        travel = turns / processes * sent / bandwidth + turns * latency
        small = turns * latency
        bare = step + travel + SMALL_SUMS * small
        hidden = step + max(0.0, travel - step * 2 / 3) + max(0.0, small - step / 3)
        climbs = 2 * (processes - 1).bit_length() * latency
        by_tree = climbs + 2 * sent / bandwidth * (processes > 1)
        tree = step + max(0.0, by_tree - step * 2 / 3) + max(0.0, climbs - step / 3)
        rows.append(
            [
                f"{processes:,}",
                f"{64 * processes:,}",
                *(f"{time * 1e3:,.1f}" for time in (bare, hidden)),
                *(f"{100 * step / time:.0f} %" for time in (bare, hidden, tree)),
            ]
        )
    two = rounds.middle("trueloop, DDP", "s cnn")
    head = ["processes", "batch", "ms, nothing hidden", "ms, hidden", "share of arithmetic", "hidden", "hidden, tree"]
    speed = f"moves {bandwidth / 1e9:.2f} GB/s, and takes {latency * 1e6:.0f} µs a turn"
    return f"""**Simulated**, no measurement: steps of the CNN by DDP on up to 1,024 processes, from three figures of
this machine: a step of one process alone takes {step * 1e3:.1f} ms; a sum of two processes over loopback {speed}.
Assumed: each process has 64 samples, a core and such a link of its own, and all are as fast; a sum is a ring of
2 (N−1) turns, each of 1/N of the bytes; "hidden" has the gradients' sum behind two thirds of the step, its backward
pass, and the counts behind the third that is its forward pass; both are rings. gloo sums by rings; "tree" is what
NCCL's trees, of 2 log₂ N turns, would make of it.
Two processes, measured: {two * 1e3:.1f} ms.

{table(head, rows)}"""
