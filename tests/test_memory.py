"""Freed memory is kept for the next step, unless the user has chosen otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trueloop.memory import SETTINGS, keep_freed_blocks


def test_both_thresholds_are_raised_and_said() -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(name: int, value: int) -> int:
        asked.append((name, value))
        return 1

    assert "kept for the next step" in keep_freed_blocks({}, mallopt)
    assert asked == [(-3, 1 << 30), (-1, 2**31 - 1)]


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_environment_says_is_left_alone(name: str) -> None:
    def mallopt(name: int, value: int) -> int:
        raise AssertionError("the user has chosen")

    assert name in keep_freed_blocks({name: "1"}, mallopt)


def test_an_allocator_that_refuses_is_not_spoken_of() -> None:
    assert keep_freed_blocks({}, lambda name, value: 0) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults of glibc's allocator")
def test_the_same_memory_serves_the_next_step() -> None:
    script = """
import resource, torch
from trueloop.memory import keep_freed_blocks
torch.set_num_threads(1)
if KEEP: keep_freed_blocks({})
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)  # 64 MB: above any threshold that glibc comes to by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
[step() for _ in range(40)]; print(sum(step() for _ in range(5)))
"""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    faults = [
        int(subprocess.check_output([sys.executable, "-c", script.replace("KEEP", str(keep))], env=environment))
        for keep in (0, 1)
    ]
    assert faults[1] * 10 < faults[0], faults
