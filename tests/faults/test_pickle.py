"""A pickle that runs code, in every place where a file is read: never run, and said."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from trueloop.checkpoint import layout
from trueloop.checkpoint.disk import Disk
from trueloop.checkpoint.store import Snapshot, damage, entries, newest, read, write
from trueloop.errors import CheckpointError

FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def pickles(canary: Path, folder: Path) -> list[bytes]:
    """As pickle writes it, and as torch does, in both of its formats."""
    folder.mkdir()
    torch.save({"weight": torch.ones(2), "more": Payload(canary)}, folder / "zip")
    torch.save(Payload(canary), folder / "old", _use_new_zipfile_serialization=False)
    assert zipfile.is_zipfile(folder / "zip")
    return [pickle.dumps(Payload(canary)), (folder / "zip").read_bytes(), (folder / "old").read_bytes()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = {"model.safetensors": {"weight": torch.ones(2)}, "optimizer.safetensors": {"step": torch.ones(1)}}
    for step in (1, 2):
        write(tmp_path / "checkpoints", Snapshot(step, 0, "every step", {}, None, {"step": step}, tensors))
    return tmp_path / "checkpoints"


def test_the_payload_works(tmp_path: Path) -> None:
    for number, data in enumerate(pickles(tmp_path / "canary", tmp_path / "made")):
        (tmp_path / "file").write_bytes(data)
        if number == 0:
            pickle.loads(data)
        else:
            torch.load(tmp_path / "file", weights_only=False)
        (tmp_path / "canary").rmdir()


@pytest.mark.parametrize("name", FILES)
def test_it_is_damage_and_is_not_run(tmp_path: Path, folder: Path, name: str) -> None:
    for data in pickles(tmp_path / "canary", tmp_path / "made"):
        harmed = folder / "step-00000002"
        (harmed / name).write_bytes(data)
        assert name in str(damage(harmed))
        with pytest.raises(CheckpointError, match=name):
            read(harmed)
        assert newest(folder)[0].entry.step == 1
        assert len(entries(folder)) == 2
        assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", FILES[:-1])
def test_it_is_not_run_though_the_manifest_was_made_to_fit(tmp_path: Path, folder: Path, name: str) -> None:
    for data in pickles(tmp_path / "canary", tmp_path / "made"):
        harmed = folder / "step-00000002"
        (harmed / name).unlink()
        written = layout.Written(*Disk().write(harmed / name, [data]))
        manifest = layout.parse((harmed / "manifest.json").read_bytes())
        files = {**manifest.files, name: written}
        fields = {**vars(manifest), "files": files}
        (harmed / "manifest.json").write_bytes(layout.serialise(layout.Manifest(**fields)))
        assert damage(harmed) is None
        with pytest.raises(CheckpointError, match="holds what no trueloop wrote"):
            read(harmed)
        assert not (tmp_path / "canary").exists()
