from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model
from torch import Tensor, nn

from trueloop.checkpoint import store
from trueloop.checkpoint.formats import read_tensors
from trueloop.checkpoint.saving import fresh_copies, snapshot_of
from trueloop.checkpoint.weights import load_weights, save_weights, weights_of, write_tensors
from trueloop.errors import ArgumentError, CheckpointError, DataError
from trueloop.optim.averages import Averaged


def new_model(seed: int = 0, width: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv1d(2, width, 3), nn.BatchNorm1d(width), nn.Linear(4, 2))
    model(torch.randn(5, 2, 6))  # so that the buffers hold something
    return model


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.float().numpy().tobytes() for name, tensor in model.state_dict().items()}


class Tied(nn.Module):
    """A language model's embedding and head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


class WithExtra(nn.Linear):
    """Extra state that is no tensor."""

    def get_extra_state(self) -> Any:
        return {"calls": 3}

    def set_extra_state(self, state: Any) -> None:
        raise AssertionError("nobody has any")


def checkpoint(run: Path, model: nn.Module, step: int, averaged: nn.Module | None = None) -> Path:
    """One as a run writes it."""
    trees: dict[str, Any] = {
        "model": dict(model.state_dict()),
        "optimizer": {},
        "state": {"averaged": None if averaged is None else dict(averaged.state_dict())},
    }
    return store.write(run / "checkpoints", snapshot_of(trees, fresh_copies(), step, 0, "a test"))


# --- there and back -------------------------------------------------------------------------------------------------


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = save_weights(new_model(0), tmp_path / "model.safetensors")
    model = new_model(1)
    assert bits(model) != bits(new_model(0))
    assert load_weights(model, file) == []
    assert bits(model) == bits(new_model(0))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.ckpt", "a"])
def test_a_file_of_torch_save(tmp_path: Path, name: str) -> None:
    torch.save(new_model(0).state_dict(), tmp_path / name)
    model = new_model(1)
    assert load_weights(model, str(tmp_path / name)) == []
    assert bits(model) == bits(new_model(0))


def test_a_lightning_checkpoint(tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in new_model(0).state_dict().items()}
    torch.save({"epoch": 2, "global_step": 100, "state_dict": state}, tmp_path / "last.ckpt")
    model = new_model(1)
    assert load_weights(model, tmp_path / "last.ckpt") == [
        "the weights are those under 'state_dict'; also in the file, and not read: 'epoch' (int), 'global_step' (int)",
        "names in the file without their prefix 'model.': so they are the model's",
    ]
    assert bits(model) == bits(new_model(0))


@pytest.mark.parametrize(
    "wrap", [partial(torch.compile, backend="eager"), nn.DataParallel], ids=["compile", "DataParallel"]
)
def test_a_wrapped_model_and_a_plain_one(tmp_path: Path, wrap: Callable[[nn.Module], nn.Module]) -> None:
    torch.save(wrap(new_model(0)).state_dict(), tmp_path / "wrapped.pt")
    model = new_model(1)
    assert len(load_weights(model, tmp_path / "wrapped.pt")) == 1
    assert bits(model) == bits(new_model(0))

    plain = save_weights(new_model(2), tmp_path / "plain.safetensors")
    assert len(load_weights(wrap(model), plain)) == 1
    assert bits(model) == bits(new_model(2))


def test_the_model_stays_what_it_is(tmp_path: Path) -> None:
    file = save_weights(nn.Conv2d(2, 3, 3), tmp_path / "model.safetensors")
    model = nn.Conv2d(2, 3, 3).to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.bias.requires_grad_(False)
    weight = model.weight
    (line,) = load_weights(model, file)
    assert line == "rounded from float32 in the file to bfloat16 in the model: weight, bias"
    assert model.weight is weight
    assert weight.dtype == torch.bfloat16
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False]


def test_tied_weights_are_written_once_and_loaded_twice(tmp_path: Path) -> None:
    saved, model = Tied(), Tied()
    file = save_weights(saved, tmp_path / "model.safetensors")
    with safe_open(file, "pt") as opened:
        assert list(opened.keys()) == ["embedding.weight"]
        assert opened.metadata()["format"] == "pt"
    assert load_weights(model, file) == []
    assert model.head.weight is model.embedding.weight
    assert torch.equal(model.head.weight, saved.head.weight)


def test_extra_state_of_modules_stays(tmp_path: Path) -> None:
    file = save_weights(nn.Linear(2, 1), tmp_path / "model.safetensors")
    assert load_weights(WithExtra(2, 1), file) == []
    assert load_weights(WithExtra(2, 1), checkpoint(tmp_path, WithExtra(2, 1), step=1)) == [
        "left out, for it is no tensor: _extra_state"
    ]
    with pytest.raises(ArgumentError, match="holds tensors alone, and _extra_state is dict"):
        save_weights(WithExtra(2, 1), tmp_path / "other.safetensors")


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    path = store.write(tmp_path / "checkpoints", store.Snapshot(1, 0, "a test", {}, None, {"seed": 7}, {}))
    with pytest.raises(CheckpointError, match="of a run, with a model"):
        load_weights(new_model(), path)


# --- another architecture -------------------------------------------------------------------------------------------


def test_another_architecture_changes_nothing_and_says_all(tmp_path: Path) -> None:
    other = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(3), nn.Linear(4, 2, bias=False))
    other.head = nn.Linear(2, 1, bias=False)
    file = save_weights(other, tmp_path / "model.safetensors")
    model = new_model()
    before = bits(model)
    with pytest.raises(DataError) as raised:
        load_weights(model, file)
    assert bits(model) == before
    call = "trueloop.checkpoint.weights.load_weights(model, file, strict=False)"
    assert str(raised.value).splitlines() == [
        "the weights are of another architecture, nothing was loaded: 6 of 9 names of the model fit",
        "in the model, not in the file: 1",
        "  2.bias  (2,)",
        "in the file, not in the model: 1",
        "  head.weight  (1, 2)",
        "of another shape: 2",
        "  0.weight  (3, 2, 3) in the model, (4, 2, 3) in the file",
        "  0.bias    (3,) in the model, (4,) in the file",
        f"give the weights of this model, or load what fits: {call} ({file})",
    ]
    assert raised.value.file == file


def test_not_strict_loads_what_fits_and_lists_the_rest(tmp_path: Path) -> None:
    file = save_weights(new_model(0, width=3), tmp_path / "model.safetensors")
    model = nn.Sequential(nn.Conv1d(2, 7, 3), nn.BatchNorm1d(3), nn.Linear(4, 2), nn.Linear(2, 2, bias=False))
    before = bits(model)
    assert load_weights(model, file, strict=False) == [
        "loaded 7 of 10 names of the model",
        "not loaded, in the model, not in the file: 3.weight (2, 2)",
        "not loaded, of another shape: 0.weight (7, 2, 3) in the model, (3, 2, 3) in the file",
        "not loaded, of another shape: 0.bias (7,) in the model, (3,) in the file",
    ]
    after, saved = bits(model), bits(new_model(0))
    stayed = ("3.weight", "0.weight", "0.bias")
    assert after == {name: before[name] if name in stayed else saved[name] for name in after}


def test_nothing_that_fits_is_an_error_also_if_not_strict(tmp_path: Path) -> None:
    file = save_weights(nn.Linear(2, 1), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="0 of 1 names"):
        load_weights(nn.Embedding(3, 3), file, strict=False)


def test_what_was_decided_stands_in_the_error(tmp_path: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 1).state_dict()}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"^the weights are those under 'state_dict'\n"):
        load_weights(nn.Linear(3, 1), tmp_path / "a.pt")


def test_a_model_without_memory(tmp_path: Path) -> None:
    file = save_weights(nn.Linear(2, 1), tmp_path / "model.safetensors")
    with pytest.raises(ArgumentError, match="weight is on the meta device"):
        load_weights(nn.Linear(2, 1, device="meta"), file)
    with pytest.raises(ArgumentError, match=r"without a shape yet \(weight\)"):
        load_weights(nn.LazyLinear(1), file)


# --- folders --------------------------------------------------------------------------------------------------------


def test_the_folder_of_a_run_that_ended(tmp_path: Path) -> None:
    checkpoint(tmp_path, new_model(1), step=3)
    file = save_weights(new_model(0), tmp_path / "model.safetensors")
    model = new_model(2)
    assert load_weights(model, tmp_path) == [f"the weights are those in {file}"]
    assert bits(model) == bits(new_model(0))


def test_the_folder_of_a_run_that_did_not_end(tmp_path: Path) -> None:
    checkpoint(tmp_path, new_model(0), step=3)
    newest = checkpoint(tmp_path, new_model(1), step=6)
    for folder in (tmp_path, tmp_path / "checkpoints"):
        model = new_model(2)
        assert load_weights(model, folder) == [f"the weights are those of {newest}"]
        assert bits(model) == bits(new_model(1))


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, new_model(0), step=3)
    newest = checkpoint(tmp_path, new_model(1), step=6)
    flip(newest / "model.safetensors")
    model = new_model(2)
    passed_over, taken = load_weights(model, tmp_path)
    assert newest.name in passed_over
    assert "model.safetensors" in passed_over
    assert taken == f"the weights are those of {whole}"
    assert bits(model) == bits(new_model(0))


def test_the_folder_of_a_checkpoint_or_its_file(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, new_model(0), step=3)
    for place in (path, path / "model.safetensors"):
        model = new_model(2)
        assert load_weights(model, place) == []
        assert bits(model) == bits(new_model(0))


def test_a_flipped_bit_in_a_checkpoint_is_never_loaded(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, new_model(0), step=3)
    flip(path / "model.safetensors")
    model = new_model(2)
    for place in (path, path / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load_weights(model, place)
    (path / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_weights(model, path)
    assert bits(model) == bits(new_model(2))


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(DataError, match=r"a file of weights, or a folder with .* got a folder with pytorch_model\.bin"):
        load_weights(new_model(), tmp_path)


def test_the_average_in_a_checkpoint(tmp_path: Path) -> None:
    averaged = Averaged(new_model(1), lambda taken: 0.5)
    stored = store.read(checkpoint(tmp_path, new_model(0), step=3, averaged=averaged))
    model = new_model(2)
    model.load_state_dict(weights_of(stored, average=True).by_name)
    assert bits(model) == bits(new_model(1))
    with pytest.raises(CheckpointError, match="the run keeps none"):
        weights_of(store.read(checkpoint(tmp_path, new_model(0), step=4)), average=True)


@pytest.mark.parametrize(
    ("there", "called"),
    [
        ("checkpoints/step-00000003", "."),
        ("checkpoints/step-00000003", ".."),
        ("checkpoints", "."),
        ("checkpoints", "step-00000003"),
        (".", "checkpoints"),
    ],
)
def test_relative_to_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, called: str) -> None:
    checkpoint(tmp_path, new_model(0), step=3)
    monkeypatch.chdir(tmp_path / there)
    model = new_model(2)
    load_weights(model, called)
    assert bits(model) == bits(new_model(0))


# --- writing --------------------------------------------------------------------------------------------------------


def test_a_tied_model_out_of_a_checkpoint_is_what_safetensors_reads(tmp_path: Path) -> None:
    saved, model = Tied(), Tied()
    tensors = weights_of(store.read(checkpoint(tmp_path, saved, step=3))).by_name
    file = tmp_path / "out.safetensors"
    assert write_tensors(tensors, file) == {"head.weight": "embedding.weight"}
    load_model(model, file)  # strict
    assert torch.equal(model.head.weight, saved.head.weight)


def test_parts_of_one_memory_are_written_each_for_itself(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    tensors: dict[str, Tensor] = {"low": whole[:4], "high": whole[4:], "even": whole[::2], "none": torch.ones(0, 3)}
    tensors |= {"square": whole.view(3, 4), "turned": whole.view(3, 4).T, "scalar": whole[1]}
    assert write_tensors(tensors, tmp_path / "a.safetensors") == {}
    found = read_tensors(tmp_path / "a.safetensors").by_name
    assert sorted(found) == sorted(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("write", [save_weights, lambda model, file: write_tensors(model.state_dict(), file)])
def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, write: Callable[[nn.Module, Path], object]) -> None:
    file = save_weights(new_model(0), tmp_path / "model.safetensors")
    before = file.read_bytes()
    with pytest.raises(ArgumentError, match="weight is complex128"):
        write(nn.Linear(2, 1, dtype=torch.complex128), file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_write_that_fails_at_its_end_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()  # a file cannot take its place
    with pytest.raises(OSError, match="directory"):
        save_weights(new_model(), tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a file's name by its number is known on Linux alone")
def test_the_file_is_brought_to_the_disk_and_then_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync

    def watched(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    save_weights(new_model(), tmp_path / "model.safetensors")
    assert synced == [f".model.safetensors.{os.getpid()}", tmp_path.name]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
@pytest.mark.parametrize("write", [save_weights, lambda model, file: write_tensors(model.state_dict(), file)])
def test_who_may_read_other_files_may_read_the_weights(
    tmp_path: Path, write: Callable[[nn.Module, Path], object], umask: int
) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "other").touch()
        write(new_model(), tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def flip(file: Path) -> None:
    """The last bit of the last byte."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
