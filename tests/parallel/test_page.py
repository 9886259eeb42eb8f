"""What docs/scale.md shows works: flags that torchrun knows, a manifest that can be read, a script that requeues."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > srun.arguments
if [ "$1" = fails ]; then exit 3; fi
trap 'sleep 0.2; echo saved > saved; exit 1' TERM
echo ready > ready
sleep 20 & wait
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo first; echo second; else echo "$@" > requeued; fi
"""


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def parsed(arguments: list[str]) -> Any:
    """As torchrun itself does it."""
    return get_args_parser().parse_args(arguments)


def test_torchrun_knows_the_flags() -> None:
    commands = re.findall(r"^torchrun (-(?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        asked = parsed(shlex.split(command.replace("\\\n", " "), comments=True))
        assert asked.training_script in ("train.py", "trueloop")


def test_the_manifest_is_a_job_whose_command_torchrun_knows() -> None:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(block("yaml"))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    program, *arguments = container["command"]
    asked = parsed(arguments)
    assert program == "torchrun"
    assert asked.shutdown_timeout < pod["terminationGracePeriodSeconds"], "or it is killed while it saves"
    assert int(asked.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert {one["name"]: one["value"] for one in container["env"]} == {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def submitted(folder: Path, script: str) -> subprocess.Popen[str]:
    """The batch script, in a folder with a srun and a scontrol of ours."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("train.sbatch", script)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "4", "SLURM_CPUS_PER_TASK": "64", "SLURM_JOB_NODELIST": "n[1-4]"}
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.Popen(["bash", "train.sbatch"], cwd=folder, env={**os.environ, **slurm, **path}, text=True)


def test_the_batch_script_saves_and_requeues_when_its_time_is_up(tmp_path: Path) -> None:
    job = submitted(tmp_path, block("bash"))
    deadline = time.monotonic() + 20
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # its trap is set a line later
    job.send_signal(signal.SIGTERM)
    job.wait(20)
    assert (tmp_path / "saved").exists(), "it waits until all is saved"
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    arguments = (tmp_path / "srun.arguments").read_text().splitlines()
    asked = parsed(arguments[arguments.index("torchrun") + 1 :])
    assert (asked.nnodes, asked.nproc_per_node, asked.rdzv_endpoint) == ("4", "8", "first:29500")
    assert asked.rdzv_id == "7.0"


def test_the_batch_script_fails_with_its_run(tmp_path: Path) -> None:
    job = submitted(tmp_path, block("bash").replace("srun --kill-on-bad-exit=1", "srun fails"))
    assert job.wait(20) == 3
    assert not (tmp_path / "requeued").exists()
