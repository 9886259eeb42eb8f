"""Processes that a script starts are heard as well, whichever way they are started, and stay what they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import trueloop
from trueloop.doctor.by_reading import READ
from trueloop.doctor.children import Heard, together
from trueloop.doctor.findings import Finding, Place

SRC = str(Path(trueloop.__file__).parents[1])
DOCTOR = ("-m", "trueloop", "doctor", "--format=json", "--output=report.json")

RANKS = """
    import os, socket, sys
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp
    from torch.nn.parallel import DistributedDataParallel as DDP
    from torch.utils.data import DataLoader, TensorDataset
    from torch.utils.data.distributed import DistributedSampler

    def main(rank, world_size, port):
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", rank=rank, world_size=world_size)
        torch.manual_seed(0)
        data = TensorDataset(torch.randn(256, 8), torch.randint(3, (256,)))
        {sampler}
        model = DDP(torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(8, 3)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(3):
            {epoch}
            for x, y in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            {validation}
        os.write(1, f"rank {{rank}} ends with {{float(model.module[1].weight.detach().sum())}}\\n".encode())
        dist.destroy_process_group()

    if __name__ == "__main__":
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            free = s.getsockname()[1]
        mp.start_processes(main, args=(2, free), nprocs=2, start_method="{method}")
"""
RIGHT = {
    "sampler": "loader = DataLoader(data, batch_size=16, sampler=DistributedSampler(data))",
    "epoch": "loader.sampler.set_epoch(epoch)",
    "validation": "pass",
}
SAME_BATCHES = RIGHT | {"sampler": "loader = DataLoader(data, batch_size=16, shuffle=True)", "epoch": "pass"}
FORGOTTEN = RIGHT | {"epoch": "pass"}


def run(folder: Path, text: str, *flags: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    (folder / "train.py").write_text(textwrap.dedent(text).lstrip())
    ended = plain(folder, *DOCTOR, *flags)
    return ended, json.loads((folder / "report.json").read_text())


def plain(folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, *before, "train.py")
    environment = os.environ | {"PYTHONPATH": SRC, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def grave(report: dict[str, Any]) -> list[str]:
    return [finding["name"] for finding in report["findings"] if finding["level"] != "note"]


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spawn", "forkserver"))]
)
def test_ranks_are_heard(tmp_path: Path, method: str) -> None:
    ended, report = run(tmp_path, RANKS.format(method=method, **SAME_BATCHES))
    assert grave(report) == ["no-distributed-sampler"]
    assert ended.returncode == 1
    assert report["steps"] == 48
    (finding,) = (one for one in report["findings"] if one["level"] != "note")
    assert finding["file"].endswith("train.py")
    assert any("2 of the 2 processes" in evidence for evidence in finding["evidence"])
    assert sorted(ended.stdout.splitlines()) == sorted(plain(tmp_path).stdout.splitlines())


@pytest.mark.parametrize(
    ("what", "expected"), [(RIGHT, []), (FORGOTTEN, ["sampler-epoch-not-set"])], ids=["right", "set_epoch forgotten"]
)
def test_ranks_are_judged(tmp_path: Path, what: dict[str, str], expected: list[str]) -> None:
    _, report = run(tmp_path, RANKS.format(method="fork", **what))
    assert grave(report) == expected


def test_what_the_processes_have_judged_is_not_asked_of_the_text_again(tmp_path: Path) -> None:
    stays_in_eval = RIGHT | {"validation": "model.eval()"}
    _, report = run(tmp_path, RANKS.format(method="fork", **stays_in_eval))
    told = [finding for finding in report["findings"] if finding["name"] == "training-in-eval-mode"]
    assert [finding["level"] for finding in told] == ["error"]
    assert READ not in told[0]["evidence"]


def test_what_one_rank_alone_does_is_told_and_what_another_does_is_not_missed() -> None:
    at = Place("train.py", 7)
    both = Finding("sampler-epoch-not-set", 508, "error", "certain", "no set_epoch", place=at)
    one = Finding("evaluation-in-train-mode", 201, "error", "certain", "in train mode", place=at)
    missing = Finding("no-validation", 603, "note", "certain", "there is none")
    told = together([], [Heard(9, 9, (both, one)), Heard(9, 9, (both, missing)), Heard(0, 0, (missing,))])
    assert {one.name: one.evidence[-1].split(" processes")[0] for one in told} == {
        "sampler-epoch-not-set": "seen in 2 of the 2",
        "evaluation-in-train-mode": "seen in 1 of the 2",
    }
    assert [one.name for one in together([], [Heard(9, 9, (missing,))])] == ["no-validation"]
    assert together([], [Heard(9, 9, (missing,))], alone=False) == []


def test_ranks_are_ended_after_enough_steps(tmp_path: Path) -> None:
    ended, report = run(tmp_path, RANKS.format(method="fork", **FORGOTTEN), "--max-steps=5")
    assert report["steps"] == 5
    assert "5 steps" in report["script"]["ended"]
    assert "ends with" not in ended.stdout


def test_a_process_of_a_class_of_its_own_and_one_that_fails(tmp_path: Path) -> None:
    text = """
        import multiprocessing, torch

        class Worker(multiprocessing.Process):
            def run(self):
                model = torch.nn.Linear(4, 1)
                opt = torch.optim.SGD(model.parameters(), lr=0.001)
                for i in range(8):
                    torch.nn.functional.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
                    opt.step()
                raise ValueError("mine")

        if __name__ == "__main__":
            worker = Worker()
            worker.start()
            worker.join()
            print(worker.exitcode)
    """
    ended, report = run(tmp_path, text)
    assert grave(report) == ["missing-zero-grad"]
    assert ended.stdout == "1\n"
    assert ended.stderr.startswith("Process Worker-1:\nTraceback")
    assert "trueloop/" not in ended.stderr


def test_what_trains_nothing_is_left_alone(tmp_path: Path) -> None:
    text = """
        import multiprocessing, os
        import torch

        def double(x):
            return 2 * x

        if __name__ == "__main__":
            with multiprocessing.Pool(2) as pool:
                print(pool.map(double, range(3)))
    """
    ended, report = run(tmp_path, text)
    assert ended.stdout == "[0, 2, 4]\n"
    assert report["findings"] == []
    assert ended.returncode == 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_that_imports_torch_by_itself(tmp_path: Path, method: str) -> None:
    text = f"""
        import multiprocessing

        def work():
            import torch
            model = torch.nn.Linear(4, 1)
            opt = torch.optim.SGD(model.parameters(), lr=0.001)
            for i in range(8):
                torch.nn.functional.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
                opt.step()

        if __name__ == "__main__":
            worker = multiprocessing.get_context("{method}").Process(target=work)
            worker.start()
            worker.join()
            print(worker.exitcode)
    """
    ended, report = run(tmp_path, text)
    assert grave(report) == ["missing-zero-grad"]
    assert ended.stdout == "0\n"
    assert "did not import torch" not in str(report["unseen"])
