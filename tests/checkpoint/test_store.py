"""Checkpoints that are whole or not there, found in their order, and verified."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import trueloop
from trueloop.checkpoint import layout
from trueloop.checkpoint.disk import Disk
from trueloop.checkpoint.store import Snapshot, copy, damage, entries, newest, read, unlisted, write
from trueloop.errors import ArgumentError, CheckpointError, NewerFormatError
from trueloop.testing import FailingDisk


def snapshot(step: int = 120, **changed: Any) -> Snapshot:
    tensors = {
        "model.safetensors": {"weight": torch.full((3, 2), float(step)), "bias": torch.zeros(2)},
        "optimizer.safetensors": {"state/0/step": torch.tensor(float(step))},
        "state.safetensors": {},
    }
    given = Snapshot(step, 3, "every 20 steps", {"loss": 0.5}, None, {"step": step}, tensors)
    return replace(given, **changed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


def filled(folder: Path, *steps: int) -> list[Path]:
    return [write(folder, snapshot(step)) for step in steps]


def flip(file: Path, place: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


# writing and reading


def test_what_is_written_is_read(folder: Path) -> None:
    given = snapshot(exact="no", metrics={"loss": math.inf, "accuracy": 0.5})
    stored = read(write(folder, given))
    assert stored.tree == {"step": 120}
    assert stored.tensors.keys() == {"model.safetensors", "optimizer.safetensors"}
    for file, tensors in stored.tensors.items():
        assert tensors.keys() == given.tensors[file].keys()
        assert all(torch.equal(tensors[name], given.tensors[file][name]) for name in tensors)
    entry = stored.entry
    assert (entry.step, entry.number, entry.epoch, entry.why, entry.exact) == (120, 1, 3, "every 20 steps", "no")
    assert entry.metrics["accuracy"] == 0.5
    assert math.isnan(entry.metrics["loss"])
    assert entry.problem is None


def test_a_folder_holds_files_that_other_programs_read(folder: Path) -> None:
    path = write(folder, snapshot())
    files = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert sorted(names(list(path.iterdir()))) == files
    assert names(list(folder.iterdir())) == ["step-00000120"]
    assert torch.equal(load_file(path / "model.safetensors")["weight"], torch.full((3, 2), 120.0))
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["files"].keys() == set(files[1:])
    assert {name: (path / name).stat().st_size for name in files[1:]} == {
        name: file["size"] for name, file in manifest["files"].items()
    }


def test_the_order_of_operations_is_that_of_a_safe_save(folder: Path) -> None:
    done: list[str] = []
    path = write(folder, snapshot(), Disk(lambda operation, path: done.append(f"{operation} {path.name}")))
    aside = f".writing-{path.name}-{os.getpid()}"
    assert done[:4] == ["mkdir run", f"sync_folder {folder.parents[1].name}", "mkdir checkpoints", "sync_folder run"]
    assert done[4] == f"mkdir {aside}"
    assert done[-4:] == [
        "close manifest.json",
        f"sync_folder {aside}",
        f"rename {path.name}",
        "sync_folder checkpoints",
    ]
    opened = [line for line in done if line.startswith("open")]
    assert opened[-1] == "open manifest.json"
    for file in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        assert done.index(f"fsync {file}") < done.index(f"close {file}") < len(done) - 3


def test_more_of_the_same_step_get_numbers(folder: Path) -> None:
    assert names(filled(folder, 120, 120, 130, 120)) == [
        *("step-00000120", "step-00000120-2", "step-00000130", "step-00000120-3")
    ]
    assert [(entry.step, entry.number) for entry in entries(folder)] == [(120, 1), (120, 2), (120, 3), (130, 1)]


def test_a_number_is_not_given_again_below_one_that_is_there(folder: Path) -> None:
    first, _ = filled(folder, 120, 120)
    Disk().remove(first)
    assert names(filled(folder, 120)) == ["step-00000120-3"]


def test_the_order_is_by_step_and_number_whatever_the_clock_says(folder: Path) -> None:
    filled(folder, *[9] * 11, 10, 100_000_000, 99_999_999)
    for number, path in enumerate(sorted(folder.iterdir())):
        os.utime(path, (1e9 - number, 1e9 - number))
    assert [(entry.step, entry.number) for entry in entries(folder)] == [
        *((9, number) for number in range(1, 12)),
        *((10, 1), (99_999_999, 1), (100_000_000, 1)),
    ]
    assert newest(folder)[0].entry.path.name == "step-100000000"


def test_a_run_that_was_moved_is_read_where_it_is_now(folder: Path, tmp_path: Path) -> None:
    filled(folder, 120)
    os.rename(folder.parent, tmp_path / "elsewhere")
    stored, passed_over = newest(tmp_path / "elsewhere" / "checkpoints")
    assert (stored.tree, passed_over) == ({"step": 120}, [])


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/a.safetensors", "a/b.safetensors", "a.pt", ".safetensors", "state.json"]
)
def test_other_names_of_files_are_refused_before_anything_is_written(folder: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match="plain names of files"):
        write(folder, snapshot(tensors={name: {"a": torch.ones(1)}}))
    assert not folder.exists()


@pytest.mark.parametrize("changed", [{"step": -1}, {"step": True}, {"tree": {1, 2}}, {"tree": math.nan}], ids=str)
def test_a_snapshot_that_is_none_is_refused_before_anything_is_written(folder: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        write(folder, snapshot(**changed))
    assert not folder.exists()


def test_an_error_in_the_middle_leaves_nothing_behind_and_is_not_dressed_up(folder: Path) -> None:
    with pytest.raises(KeyError):  # a dtype that encode.pack() would have refused
        write(folder, snapshot(tensors={"model.safetensors": {"a": torch.ones(1, dtype=torch.complex128)}}))
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_said_with_step_and_file(folder: Path) -> None:
    filled(folder, 100)
    disk = FailingDisk(4)  # mkdir, open, write (header), write (first tensor)
    with pytest.raises(
        CheckpointError, match=r"could not be saved: No space left on device; free some space"
    ) as caught:
        write(folder, snapshot(), disk)
    assert caught.value.step == 120
    assert caught.value.file == folder / "step-00000120" / "model.safetensors"
    assert names(list(folder.iterdir())) == ["step-00000100"]


def test_ctrl_c_in_a_save_leaves_nothing_behind(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(folder, snapshot(), FailingDisk(12, KeyboardInterrupt()))
    assert list(folder.iterdir()) == []


def test_what_a_kill_left_under_our_own_number_is_in_nobody_s_way(folder: Path) -> None:
    aside = folder / f".writing-step-00000120-{os.getpid()}"
    aside.mkdir(parents=True)
    (aside / "model.safetensors").touch()
    assert damage(write(folder, snapshot())) is None
    assert names(list(folder.iterdir())) == ["step-00000120"]


# copying


def test_a_copy_is_what_was_written_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    (path,) = filled(folder, 120)
    (path / "theirs").mkdir()
    new = copy(path, tmp_path / "other" / "checkpoints")
    assert new.name == path.name
    assert unlisted(path) == ["theirs"]
    assert unlisted(new) == []
    assert damage(new) is None


def test_every_operation_of_a_copy_fails(folder: Path, tmp_path: Path) -> None:
    (path,) = filled(folder, 120)
    other = tmp_path / "other"
    for at in range(1, 1000):
        try:
            new = copy(path, other, FailingDisk(at))
        except CheckpointError as error:
            assert "could not be copied: No space left on device" in str(error)  # noqa: PT017
            assert not other.exists() or list(other.iterdir()) == []
        else:
            break
    assert at > 15
    assert damage(new) is None


# damage


def replaced(file: Path, by: Callable[[Path], object]) -> None:
    file.rename(file.with_name("moved"))
    by(file)


def linked(file: Path) -> None:
    replaced(file, lambda file: file.symlink_to("moved"))


def flipped_twice(path: Path) -> None:
    flip(path / "state.json")
    flip(path / "model.safetensors")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing file": (lambda path: os.unlink(path / "state.json"), "^state.json is missing$"),
    "no manifest": (lambda path: os.unlink(path / "manifest.json"), "^manifest.json is missing$"),
    "cut off": (
        lambda path: os.truncate(path / "model.safetensors", 104),
        r"^model.safetensors: 104 bytes where \d{3} were written$",
    ),
    "longer": (
        lambda path: os.truncate(path / "state.json", 3000),
        r"^state.json: 3,000 bytes where 12 were written$",
    ),
    "a flipped bit": (
        lambda path: flip(path / "optimizer.safetensors"),
        "^optimizer.safetensors: its sha256 is not the one that was written: a bit has flipped$",
    ),
    "a flipped bit in the manifest": (lambda path: flip(path / "manifest.json", 30), "^manifest.json"),
    "a link": (lambda path: linked(path / "state.json"), "^state.json is no plain file, but a link$"),
    "a link for a manifest": (
        lambda path: linked(path / "manifest.json"),
        "^manifest.json is no plain file, but a link$",
    ),
    "a folder": (
        lambda path: replaced(path / "state.json", Path.mkdir),
        "^state.json is no plain file, but a folder$",
    ),
    "a pipe that nobody writes to": (
        lambda path: replaced(path / "manifest.json", os.mkfifo),
        "^manifest.json is no plain file, but a device$",
    ),
    "two files": (flipped_twice, "^model.safetensors: its .*; state.json: its "),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named_and_passed_over(folder: Path, kind: str) -> None:
    before, path = filled(folder, 100, 120)
    harm, message = DAMAGES[kind]
    assert damage(path) is None
    harm(path)
    found = damage(path)
    assert found is not None
    assert re.search(message, found)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read(path)
    assert caught.value.file == path
    stored, passed_over = newest(folder)
    assert stored.entry.path == before
    assert passed_over == [f"step-00000120 is damaged and was passed over: {found}"]
    only_hashes_tell = kind in ("a flipped bit", "two files")
    assert entries(folder)[-1].problem == (None if only_hashes_tell else found)


def test_a_renamed_checkpoint_is_damage(folder: Path) -> None:
    (path,) = filled(folder, 120)
    other = path.rename(folder / "step-00000121")
    assert damage(other) == "the folder is named step-00000121, its manifest.json says step 120"


def test_a_file_in_place_of_a_checkpoint_is_damage(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "step-00000120").touch()
    assert damage(folder / "step-00000120") == "step-00000120 is no folder"
    assert damage(folder / "step-00000121") == "step-00000121 is missing"
    assert [entry.problem for entry in entries(folder)] == ["step-00000120 is no folder"]


def test_other_files_beside_them_are_nobody_s_business(folder: Path) -> None:
    (path,) = filled(folder, 120)
    (path / ".DS_Store").touch()
    (folder / "notes.txt").touch()
    assert damage(path) is None
    assert names([entry.path for entry in entries(folder)]) == ["step-00000120"]


def test_tensors_that_are_none_though_their_hash_fits_are_an_error_of_ours(folder: Path) -> None:
    path = write(folder, snapshot())
    manifest = layout.parse((path / "manifest.json").read_bytes())
    for name, data in (("model.safetensors", b"nonsense"), ("state.json", b"{")):
        size, sha256 = Disk().write(path / "new", [data])
        files = {**manifest.files, name: layout.Written(size, sha256)}
        (path / "new").replace(path / name)
        (path / "manifest.json").write_bytes(layout.serialise(replace(manifest, files=files)))
        assert damage(path) is None or name == "state.json"
        with pytest.raises(CheckpointError):
            read(path)


def newer(path: Path) -> None:
    fields = json.loads((path / "manifest.json").read_text()) | {"format": 2, "trueloop": "0.9"}
    del fields["sha256"]
    (path / "manifest.json").write_bytes(layout._canonical({**fields, "sha256": layout._sha256(fields)}))


def test_a_newer_format_is_refused_and_never_gone_back_behind(folder: Path) -> None:
    _, path = filled(folder, 100, 120)
    newer(path)
    for refused in (lambda: newest(folder), lambda: read(path)):
        with pytest.raises(NewerFormatError, match=r"install trueloop>=0\.9") as caught:
            refused()
        assert caught.value.file == path
    assert "install trueloop>=0.9" in str(damage(path))
    assert "install trueloop>=0.9" in str(entries(folder)[-1].problem)


# the newest


def test_the_newest_of_a_step(folder: Path) -> None:
    first, second, third = filled(folder, 100, 100, 120)
    assert newest(folder)[0].entry.path == third
    assert newest(folder, step=100)[0].entry.path == second
    flip(second / "model.safetensors")
    stored, passed_over = newest(folder, step=100)
    assert stored.entry.path == first
    assert passed_over[0].startswith("step-00000100-2 is damaged and was passed over: model.safetensors")


def test_no_checkpoint_of_that_step_says_which_there_are(folder: Path) -> None:
    filled(folder, 100, 100, 120)
    with pytest.raises(CheckpointError, match="no checkpoint of step 110; choose among 100, 120"):
        newest(folder, step=110)


@pytest.mark.parametrize("made", [False, True])
def test_no_checkpoints_are_said(folder: Path, made: bool) -> None:
    if made:
        folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="there are no checkpoints"):
        newest(folder)
    assert entries(folder) == []


def test_no_whole_checkpoint_says_what_is_wrong_with_each(folder: Path) -> None:
    first, second = filled(folder, 100, 120)
    flip(first / "model.safetensors")
    (second / "state.json").unlink()
    says = "no whole checkpoint: step-00000120 is damaged: state.json is missing; step-00000100 is damaged: model.safet"
    with pytest.raises(CheckpointError, match=says):
        newest(folder)


def test_a_file_in_place_of_the_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    for refused in (newest, entries):
        with pytest.raises(CheckpointError, match="cannot be read: Not a directory"):
            refused(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="could not be saved"):
        write(tmp_path / "checkpoints", snapshot())


def test_a_list_does_not_import_torch() -> None:
    code = "import sys, trueloop.checkpoint.store as s; s.entries(s.Path('.')); assert 'torch' not in sys.modules"
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    report = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert report.returncode == 0, report.stderr
