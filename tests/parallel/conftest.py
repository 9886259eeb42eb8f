"""Runs a script in several processes that torch joins to one group, and gives what rank 0 has saved."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import trueloop

Launch = Callable[..., Any]
"""``launch(script, processes, *arguments)``: what rank 0 has saved."""

SECONDS = 240
"""More than any of these scripts takes, also on a machine that is busy: a hang is to be an error."""


STARTS = {"launch", "environments", "tmp_path"}
"""Whoever asks for one of these starts processes, which takes seconds."""
SAMPLE = (
    "test_alike.py::test_what_differs_is_named_before_the_first_step",
    "test_curves.py::test_in_single_precision_the_curve_is_the_same_to_rounding[one sample last]",
    "test_curves.py::test_two_processes_give_the_bits_of_one_that_accumulates",
    "test_evaluation.py::test_metrics_and_predictions_are_those_of_one_process_to_the_bit[2]",
    "test_own_loop.py::test_two_processes_give_the_bits_of_one_that_accumulates",
    "test_reading.py::test_a_distributed_sampler_has_shared_out_already",
    "test_replicate.py::test_parameters_that_the_loss_leaves_out_are_named_before_the_step[never]",
    "test_shard.py::test_two_processes_have_the_bits_of_one_that_accumulates",
    "test_survive.py::test_an_exception_in_a_step_is_the_business_of_its_process[ddp]",
    "test_survive.py::test_a_run_saved_on_two_processes_goes_on_along_its_curve[2]",
)
"""Of those, the ordinary suite runs these; `make proof` runs them all."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves to the proof what starts processes, but for a sample."""
    here = Path(__file__).parent
    for item in items:
        starts = item.path.parent == here and STARTS.intersection(getattr(item, "fixturenames", ()))
        if starts and not any(name in item.nodeid for name in SAMPLE):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Starts a script in so many processes, as torchrun does; 1 is a process that knows of no other.

    The script finds its arguments in ``sys.argv[2:]``, and saves by ``torch.save(…, sys.argv[1])`` on rank 0.
    """

    failed: dict[tuple[object, ...], BaseException] = {}

    def launched(script: str, processes: int = 2, *arguments: str) -> Any:
        if (error := failed.get((script, processes, arguments))) is not None:
            raise error  # once is enough: it may have been a hang
        try:
            return launched_anew(script, processes, *arguments)
        except BaseException as raised:
            failed[script, processes, arguments] = raised
            raise

    def launched_anew(script: str, processes: int, *arguments: str) -> Any:
        folder = tmp_path_factory.mktemp("launched")
        file, saved = folder / "script.py", folder / "saved.pt"
        file.write_text(script)
        run(file, processes, [str(saved), *arguments])
        return torch.load(saved, weights_only=False)

    return launched


@pytest.fixture
def environments() -> Callable[[int], list[Mapping[str, str]]]:
    """What torchrun gives each of so many processes, for a test that starts them by itself."""

    def environments(processes: int) -> list[Mapping[str, str]]:
        port = free_port()
        return [environment(rank, processes, port) for rank in range(processes)]

    return environments


def run(file: Path, processes: int, arguments: list[str]) -> None:
    """All processes end well, or the test fails with what they wrote; where they hang, with the lines they stand at."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, str(file), *arguments],
            env={**environment(rank, processes, port), "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for rank in range(processes)
    ]
    stood = ""
    try:
        try:
            written = [process.communicate(timeout=SECONDS)[0] for process in started]
        except subprocess.TimeoutExpired:
            stood = f"after {SECONDS} s: {[process.poll() for process in started]}; where each of them stands:\n"
            end_all(started, signal.SIGABRT)
            written = [process.communicate(timeout=20)[0] for process in started]
    finally:
        end_all(started, signal.SIGKILL)
    told = stood + "\n".join(f"--- process {rank}\n{text}" for rank, text in enumerate(written))
    assert [process.returncode for process in started] == [0] * processes, told


def end_all(started: list[subprocess.Popen[str]], by: signal.Signals) -> None:
    """Them and their workers, which may outlive them."""
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, by)


def environment(rank: int, processes: int, port: int) -> Mapping[str, str]:
    """What torchrun gives a process."""
    sources = str(Path(trueloop.__file__).parents[1])
    common = {**os.environ, "PYTHONPATH": sources, "OMP_NUM_THREADS": "1"}
    if processes == 1:
        return common
    return {
        **common,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    """One that nobody listens at, and that is none of those which the system gives to whoever asks for any.

    Processes take seconds to begin, and gloo's of another test ask for many meanwhile.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as listening, contextlib.suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
