"""What it was measured on, and how busy that was with other things."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def describe(python: Path) -> str:
    """The machine in one paragraph."""
    ask = (
        "import torch, platform; able = torch.cpu.get_capabilities(); "
        "print(f'torch {torch.__version__}, Python {platform.python_version()}, native bf16:', "
        "', '.join(n for n in ('avx512_bf16', 'amx_bf16') if able.get(n)) or 'none')"
    )
    versions = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    return f"{_cpu()}, {os.cpu_count()} cores, {_memory()}; {platform.system()} {platform.release()}; {versions}"


def stamp(disturbed: float | None = None) -> str:
    """When, at which commit, under which load."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    text = f"Measured {now}, commit {_commit()}, load average {load}"
    if disturbed is None:
        return text + "."
    if disturbed < 0.05:
        return f"{text}; other processes took {disturbed:.0%} of the machine meanwhile."
    return (
        f"{text}. **Disturbed: other processes took {disturbed:.0%} of the machine meanwhile; "
        "trust ratios more than times, and CPU more than wall.**"
    )


@dataclass
class Disturbance:
    """Counts what other processes take of the machine while ours are asked to work."""

    others: float = 0.0
    wall: float = 0.0

    @property
    def share(self) -> float | None:
        """Of all cores' time; None where it cannot be told."""
        return self.others / (self.wall * (os.cpu_count() or 1)) if self.wall else None


def busy_seconds() -> float | None:
    """Seconds of CPU that all processes have taken since the start of the machine; None off Linux."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + softirq) / TICKS_A_SECOND


def process_seconds(pid: int) -> float:
    """Seconds of CPU that one process has taken; 0 off Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name") or platform.machine()
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, ValueError):
        return "memory unknown"


def _commit() -> str:
    try:
        ask = ["git", "--no-optional-locks", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
