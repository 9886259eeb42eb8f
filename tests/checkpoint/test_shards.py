"""A checkpoint whose tensors lie in parts in the files of several processes, read by one of them alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trueloop.checkpoint import layout, store
from trueloop.checkpoint.disk import DISK
from trueloop.checkpoint.encode import pack
from trueloop.checkpoint.find import find
from trueloop.checkpoint.resume import FILES
from trueloop.checkpoint.tensors import chunks
from trueloop.checkpoint.weights import load_weights
from trueloop.cli.main import main
from trueloop.errors import CheckpointError

WEIGHT, BIAS, MOMENT = torch.randn(5, 3), torch.randn(5), torch.randn(5, 3)


class Two:
    """Writes the files that two processes would: rows 0 to 2, and 3 and 4."""

    def __init__(self, parts: Mapping[str, Tensor], *, rows: slice | None = None) -> None:
        self._parts, self._rows, self.closed = parts, rows, False

    def __call__(self, folder: Path) -> Mapping[str, layout.Written]:
        written = {}
        for number, rows in enumerate([slice(0, 3), self._rows or slice(3, 5)], 1):
            name = layout.shard_name(number)
            places = {
                key: {"saved_offsets": [rows.start] + [0] * (part.dim() - 1)} for key, part in self._parts.items()
            }
            tensors = {key: part[rows].contiguous() for key, part in self._parts.items()}
            metadata = {"format": "pt", "DCP_SHARDING_INFO": json.dumps(places)}
            written[name] = layout.Written(*DISK.write(folder / name, chunks(tensors, metadata)))
        return written

    def close(self) -> None:
        self.closed = True


def saved(run: Path, step: int, shards: store.WriteShards) -> Path:
    trees: dict[str, Any] = {
        "model": {"weight": {"$tensor": "weight"}, "bias": {"$tensor": "bias"}},
        "optimizer": {"": {"state": {"$dict": [[0, {"exp_avg": {"$tensor": "/state/0/exp_avg"}}]]}}},
        "state": pack({"averaged": None, "step": step}, lambda name, tensor: tensor)[0],
    }
    plain = {FILES["model"]: {"bias": BIAS}}
    return store.write(run / "checkpoints", store.Snapshot(step, 0, "asked", {}, None, trees, plain), shards=shards)


def two(**how: Any) -> Two:
    return Two({"model.safetensors/weight": WEIGHT, "optimizer.safetensors//state/0/exp_avg": MOMENT}, **how)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (3, 6):
        saved(tmp_path, step, two())
    return tmp_path


def test_parts_come_back_whole(run: Path) -> None:
    trees = find(run).trees
    assert torch.equal(trees["model"]["weight"], WEIGHT)
    assert torch.equal(trees["model"]["bias"], BIAS)
    assert torch.equal(trees["optimizer"][""]["state"][0]["exp_avg"], MOMENT)


def test_its_weights_are_read_and_exported_as_those_of_any_other(run: Path) -> None:
    model = nn.Linear(3, 5)
    load_weights(model, run)
    assert torch.equal(model.weight, WEIGHT)
    assert main(["export", str(run), "--output", str(run / "one.safetensors")]) == 0
    exported = load_file(run / "one.safetensors")
    assert exported.keys() == {"weight", "bias"}
    assert torch.equal(exported["weight"], WEIGHT)


def test_a_flipped_bit_in_a_shard_is_named_and_the_checkpoint_before_is_taken(run: Path) -> None:
    shard = run / "checkpoints" / "step-00000006" / "shard-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert "shard-00002.safetensors: its sha256 is not the one" in str(store.damage(shard.parent))
    found = find(run)
    assert found.entry.step == 3
    assert len(found.passed) == 1
    assert "shard-00002.safetensors: its sha256" in found.passed[0]
    with pytest.raises(CheckpointError, match=r"shard-00002.safetensors: its sha256"):
        store.read(shard.parent)


def test_a_shard_that_is_missing_is_named_also_by_a_process_that_leaves_the_hashes_to_another(run: Path) -> None:
    path = run / "checkpoints" / "step-00000006"
    (path / "shard-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard-00001.safetensors is missing"):
        store.read(path, verified=True)


def test_what_lies_beside_the_shards_is_not_read(run: Path) -> None:
    path = run / "checkpoints" / "step-00000006"
    (path / "shard-00009.safetensors").write_bytes(b"".join(chunks({"model.safetensors/weight": torch.zeros(9, 9)})))
    (path / ".metadata").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    assert torch.equal(find(run).trees["model"]["weight"], WEIGHT)


def test_parts_that_do_not_make_a_whole_are_no_tensor(tmp_path: Path) -> None:
    """Or memory that nobody has written would be taken for weights."""
    path = saved(tmp_path, 3, two(rows=slice(4, 5)))
    with pytest.raises(CheckpointError, match=r"parts of model.safetensors/weight are missing"):
        store.read(path)


class Refused(Two):
    def __call__(self, folder: Path) -> Mapping[str, layout.Written]:
        super().__call__(folder)
        raise RuntimeError("process 1: No space left on device")


def test_a_process_that_cannot_write_leaves_nothing_of_the_checkpoint(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"could not be saved: process 1: No space left on device; free some"):
        saved(run, 9, Refused({"model.safetensors/weight": WEIGHT}))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000003", "step-00000006"]


class Elsewhere(Two):
    """Processes on another machine, whose disk this one does not see."""

    def __call__(self, folder: Path) -> Mapping[str, layout.Written]:
        written = super().__call__(folder)
        (folder / "shard-00002.safetensors").unlink()
        return written


def test_a_folder_that_is_not_shared_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"shard-00002.safetensors is missing; give the run a folder on a file"):
        saved(tmp_path, 3, Elsewhere({"model.safetensors/weight": WEIGHT}))
