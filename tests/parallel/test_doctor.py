"""The doctor under torchrun: what it says of hand-written scripts for several processes, wrong ones and right ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import trueloop
from trueloop.doctor.others import users_lines
from trueloop.doctor.rules.weights_drift_apart import differ

SRC = str(Path(trueloop.__file__).parents[1])

SCRIPT = """
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset
from torch.utils.data.distributed import DistributedSampler

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
x = torch.randn(240, 8)
y = x[:, :3].argmax(1)
train, val = TensorDataset(x[:192], y[:192]), TensorDataset(x[192:], y[192:])
criterion = nn.CrossEntropyLoss()
network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
{setup}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(4):
    {epoch}
    model.train()
    for a, b in loader:
        optimizer.zero_grad()
        {backward}
        optimizer.step()
    model.eval()
    {evaluation}
dist.destroy_process_group()
"""

SAMPLER = """
sampler = DistributedSampler(train)
loader = DataLoader(train, batch_size=16, sampler=sampler)
"""
WRAPPED = "model = DDP(network)\n"
BACKWARD = "criterion(model(a), b).backward()\n"
RIGHT = {
    "setup": SAMPLER + WRAPPED,
    "epoch": "sampler.set_epoch(epoch)",
    "backward": BACKWARD,
    "evaluation": """
with torch.no_grad():
    right = sum(int((model(a).argmax(1) == b).sum()) for a, b in DataLoader(val, batch_size=24))
if rank == 0:
    print(epoch, right / len(val))
""",
}
EVERYWHERE = RIGHT | {"epoch": "pass"}
PART = "part = DataLoader(val, batch_size=8, sampler=DistributedSampler(val, shuffle=False))\n"
OF_ITS_PART = """
right, seen = 0, 0
with torch.no_grad():
    for a, b in part:
        right += int((model(a).argmax(1) == b).sum())
        seen += len(b)
{together}
if rank == 0:
    print("epoch", epoch, "accuracy", right / seen)
"""
COUNTED = "counts = torch.tensor([right, seen])\ndist.all_reduce(counts)\nright, seen = counts.tolist()"
STREAM = """
class Stream(IterableDataset):
    def __iter__(self):
        order = torch.randperm(192, generator=torch.Generator().manual_seed(epoch)).tolist()
        for index in order{part}:
            yield x[index], y[index]

loader = DataLoader(Stream(), batch_size=16)
"""
BATCHES = """
class Batches(Sampler):
    def __iter__(self):
        yield from torch.randperm(192, generator=torch.Generator().manual_seed(epoch)).split(16)

    def __len__(self):
        return 12

loader = DataLoader(train, batch_sampler=Batches())
"""
AVERAGED = BACKWARD + "for p in model.parameters():\n    dist.all_reduce(p.grad)\n    p.grad /= size\n"
ALONE = SAMPLER + "model = network\n"

WRONG = {
    "no sampler": (
        EVERYWHERE | {"setup": "loader = DataLoader(train, batch_size=16, shuffle=True)\n" + WRAPPED},
        "no-distributed-sampler",
    ),
    "all of it, in other orders": (
        EVERYWHERE
        | {"setup": "torch.manual_seed(rank)\nloader = DataLoader(train, batch_size=16, shuffle=True)\n" + WRAPPED},
        "no-distributed-sampler",
    ),
    "the part of rank 0 everywhere": (
        RIGHT | {"setup": SAMPLER.replace("(train)", "(train, num_replicas=size, rank=0)") + WRAPPED},
        "no-distributed-sampler",
    ),
    "a stream that nobody shares out": (
        EVERYWHERE | {"setup": STREAM.format(part="") + WRAPPED},
        "no-distributed-sampler",
    ),
    "a sampler of one's own that does not": (EVERYWHERE | {"setup": BATCHES + WRAPPED}, "no-distributed-sampler"),
    "the epoch is not set": (EVERYWHERE, "sampler-epoch-not-set"),
    "a metric of rank 0's part": (
        RIGHT | {"setup": SAMPLER + PART + WRAPPED, "evaluation": OF_ITS_PART.format(together="")},
        "metric-of-one-process",
    ),
    "a metric of rank 0's part, the rank by a letter": (
        RIGHT
        | {
            "setup": "r, w = dist.get_rank(), dist.get_world_size()\n" + SAMPLER + PART + WRAPPED,
            "evaluation": OF_ITS_PART.format(together="").replace("rank == 0", "r == 0"),
        },
        "metric-of-one-process",
    ),
    "never wrapped, with a metric of all": (
        RIGHT | {"setup": ALONE + PART, "evaluation": OF_ITS_PART.format(together=COUNTED)},
        "weights-drift-apart",
    ),
    "never wrapped": (RIGHT | {"setup": ALONE}, "weights-drift-apart"),
    "around the wrapping": (
        RIGHT | {"backward": BACKWARD.replace("model(a)", "model.module(a)")},
        "weights-drift-apart",
    ),
    "loaded by rank 0 alone": (
        RIGHT | {"setup": SAMPLER + WRAPPED + "if rank == 0:\n    nn.init.normal_(model.module[0].weight)\n"},
        "weights-drift-apart",
    ),
    "averaged by hand, from other weights": (
        RIGHT | {"setup": ALONE + "if rank:\n    nn.init.normal_(model[0].weight)\n", "backward": AVERAGED},
        "weights-drift-apart",
    ),
    "never in step": (
        RIGHT | {"backward": "with model.no_sync():\n    " + BACKWARD},
        "weights-drift-apart",
    ),
}
SILENT = {
    "as it should be": RIGHT,
    "counted over all parts": RIGHT
    | {"setup": SAMPLER + PART + WRAPPED, "evaluation": OF_ITS_PART.format(together=COUNTED)},
    "each says its own": RIGHT
    | {
        "setup": SAMPLER + PART + WRAPPED,
        "evaluation": OF_ITS_PART.format(together="").replace("if rank == 0:\n    ", ""),
    },
    "a metric that syncs itself": RIGHT
    | {
        "setup": "import torchmetrics\naccuracy = torchmetrics.Accuracy('multiclass', num_classes=3)\n"
        + (SAMPLER + PART + WRAPPED),
        "evaluation": "with torch.no_grad():\n    for a, b in part:\n        accuracy.update(model(a), b)\n"
        "print(accuracy.compute())\naccuracy.reset()",
    },
    "a stream that is shared out": EVERYWHERE | {"setup": STREAM.format(part="[rank::size]") + WRAPPED},
    "rows of its own": EVERYWHERE
    | {
        "setup": "own = TensorDataset(x[rank:192:size], y[rank:192:size])\n"
        "loader = DataLoader(own, batch_size=16, shuffle=True)\n" + WRAPPED
    },
    "averaged by hand": RIGHT | {"setup": ALONE, "backward": AVERAGED},
    "weights averaged now and then": RIGHT
    | {
        "setup": ALONE,
        "evaluation": "for p in model.parameters():\n    dist.all_reduce(p.data)\n    p.data /= size\n"
        + str(RIGHT["evaluation"]),
    },
    "an ensemble": EVERYWHERE
    | {"setup": "torch.manual_seed(rank)\nloader = DataLoader(train, batch_size=16, shuffle=True)\nmodel = network\n"},
    "accumulated": RIGHT
    | {
        "backward": "with model.no_sync():\n    (criterion(model(a[:8]), b[:8]) / 2).backward()\n"
        "(criterion(model(a[8:]), b[8:]) / 2).backward()\n"
    },
    "sharded": RIGHT
    | {"setup": SAMPLER + "from torch.distributed.fsdp import fully_shard\nmodel = fully_shard(network)\n"},
}
QUICK = ("a stream that nobody shares out", "around the wrapping", "a metric of rank 0's part")


def cases(kind: Mapping[str, object]) -> list[object]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in kind]


@pytest.mark.parametrize("name", cases(WRONG))
def test_a_mistake_is_found(tmp_path: Path, name: str) -> None:
    what, expected = WRONG[name]
    assert grave(tmp_path, what) == {expected}


@pytest.mark.parametrize("name", cases(SILENT))
def test_what_is_right_is_not_found_fault_with(tmp_path: Path, name: str) -> None:
    assert grave(tmp_path, SILENT[name]) == set()


def test_what_one_process_alone_does_is_told_by_the_first_with_its_number(tmp_path: Path) -> None:
    script = written(RIGHT).replace("optimizer.zero_grad()", "rank == 1 or optimizer.zero_grad()")
    report, ended = diagnosed(tmp_path, script)
    (finding,) = [one for one in report["findings"] if one["level"] == "error"]
    assert (finding["name"], finding["evidence"][-1]) == ("missing-zero-grad", "seen in process 1 alone, of 2")
    assert ended.stderr.count("trueloop doctor: found") == 1
    assert ended.returncode == 1


def test_what_all_do_is_told_once(tmp_path: Path) -> None:
    report, ended = diagnosed(tmp_path, written(EVERYWHERE))
    (finding,) = [one for one in report["findings"] if one["level"] != "note"]
    assert (finding["name"], finding["evidence"][-1]) == ("sampler-epoch-not-set", "seen in 2 of the 2 processes")
    assert ended.returncode == 1


@pytest.mark.parametrize("how", ["raise ValueError('mine')", "__import__('os').kill(__import__('os').getpid(), 9)"])
def test_one_that_dies_keeps_nobody(tmp_path: Path, how: str) -> None:
    script = written(RIGHT | {"evaluation": f"if rank == 1 and epoch == 1:\n    {how}"})
    report, ended = diagnosed(tmp_path, script)
    assert report["script"]["failed"]
    assert ended.returncode == 1
    assert ("ValueError: mine" in str(report["unseen"])) is ("raise" in how)


def grave(folder: Path, what: Mapping[str, str]) -> set[str]:
    """The names of findings that are more than notes, of two processes that torchrun has started."""
    report, ended = diagnosed(folder, written(what))
    assert not report["script"]["error"], ended.stderr
    assert "defect" not in str(report["unseen"]), report
    return {one["name"] for one in report["findings"] if one["level"] != "note"}


def diagnosed(folder: Path, script: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """The one report of two processes that torchrun has started, and how they ended."""
    (folder / "train.py").write_text(script)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*torchrun, "-m", "trueloop", "doctor", "--format=json", "--output=report.json", "train.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": SRC, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (folder / "report.json").exists(), ended.stderr
    return json.loads((folder / "report.json").read_text()), ended


def written(what: Mapping[str, str]) -> str:
    lines = []
    for line in SCRIPT.strip().splitlines():
        slot = re.fullmatch(r"( *)\{(\w+)\}", line)
        lines.append(textwrap.indent(what[slot[2]].strip(), slot[1]) if slot else line)
    return "\n".join(lines) + "\n"


def test_weights_differ_by_their_bits() -> None:
    own = '[["w", [2], 5, 1.0], ["b", [1], 3, 2.0]]'
    assert differ(own, own) is None
    seen = differ(own, '[["w", [2], 5, 1.0], ["b", [1], 4, 2.5]]')
    assert seen == "b has norm 2.5 there and 2 here; 1 of 2 tensors differ"
    assert differ(own, '[["w", [2], 6, 1.0]]') is None, "another model is no other state of this one"


def test_lines_are_read_without_their_comments(tmp_path: Path) -> None:
    file = tmp_path / "notebook.py"
    file.write_text("a = 1  # all_reduce\n")
    assert "a = 1  " in users_lines(str(file))
