from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from trueloop.checkpoint.formats import TORCH, read_tensors
from trueloop.errors import DataError

STATE = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.tensor([1.0, float("nan")])}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return list(one) == list(other) and all(
        one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one
    )


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "older"])
@pytest.mark.parametrize("suffix", [*TORCH, ".weights", ""])
def test_a_file_of_torch_save_whatever_it_is_called(tmp_path: Path, suffix: str, is_zip: bool) -> None:
    file = tmp_path / f"theirs{suffix}"
    torch.save(STATE, file, _use_new_zipfile_serialization=is_zip)
    found = read_tensors(file)
    assert same(found.by_name, STATE)
    assert found.lines == []


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ""])
def test_a_safetensors_file_whatever_it_is_called(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"theirs{suffix}"
    save_file(STATE, file)
    assert same(dict(sorted(read_tensors(file).by_name.items())), dict(sorted(STATE.items())))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_safetensors_file_that_begins_as_a_pickle_does(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "theirs.pt"
    for length in range(protocol * 256, protocol * 256 + 250):  # the header's length is a multiple of 8
        save_file({"w" * (length - 60): torch.ones(2)}, file)
        if file.read_bytes()[:2] == bytes([0x80, protocol]):
            break
    assert file.read_bytes()[:2] == bytes([0x80, protocol])
    assert [tensor.tolist() for tensor in read_tensors(file).by_name.values()] == [[1.0, 1.0]]


def test_a_torch_file_called_safetensors_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "theirs.safetensors"
    torch.save(STATE, file)
    with pytest.raises(DataError, match=r"its content looks like torch's: call it \.pt"):
        read_tensors(file)


# --- where the weights are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["state_dict", "model_state_dict", "model", "module"])
def test_the_usual_places(tmp_path: Path, place: str) -> None:
    file = tmp_path / "theirs.ckpt"
    torch.save({"epoch": 3, place: OrderedDict(STATE), "optimizer": {"state": {}}}, file)
    found = read_tensors(file)
    assert same(found.by_name, STATE)
    assert found.lines == [
        f"the weights are those under '{place}'; also in the file, and not read: 'epoch' (int), 'optimizer' (dict)"
    ]


def test_places_in_places_the_likeliest_first(tmp_path: Path) -> None:
    file = tmp_path / "theirs.pt"
    torch.save({"model": {"other": torch.ones(1)}, "state_dict": {"module": STATE}}, file)
    found = read_tensors(file)
    assert same(found.by_name, STATE)
    assert found.lines == [
        "the weights are those under 'state_dict.module'; also in the file, and not read: 'model' (dict)"
    ]


def test_settings_under_the_name_of_weights_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "theirs.pt"
    torch.save({"model": {"width": 3}, "module": STATE}, file)
    assert same(read_tensors(file).by_name, STATE)


def test_a_dict_that_holds_itself_has_an_end(tmp_path: Path) -> None:
    file = tmp_path / "theirs.pt"
    found: dict[str, Any] = {}
    found["state_dict"] = found
    torch.save(found, file)
    with pytest.raises(DataError, match="expected tensors by name"):
        read_tensors(file)


def test_what_is_no_plain_tensor_is_left_out_and_named(tmp_path: Path) -> None:
    file = tmp_path / "theirs.pt"
    odd = {"sparse": torch.eye(2).to_sparse(), "meta": torch.ones(2, device="meta"), "count": 3, 7: torch.ones(1)}
    torch.save(STATE | odd, file)
    found = read_tensors(file)
    assert same(found.by_name, STATE)
    (line,) = found.lines
    assert line == (
        "left out, for they are no plain tensors: 'sparse' (a sparse_coo tensor), "
        "'meta' (a tensor on the meta device), 'count' (int), 7 (Tensor)"
    )


@pytest.mark.parametrize("value", [[torch.ones(1)], torch.ones(1), 3, {"epoch": 3, "lr": 0.1}])
def test_no_tensors_by_name(tmp_path: Path, value: object) -> None:
    file = tmp_path / "theirs.pt"
    torch.save(value, file)
    with pytest.raises(DataError, match="expected tensors by name, got"):
        read_tensors(file)


def test_tied_weights_share_their_memory(tmp_path: Path) -> None:
    file, weight = tmp_path / "theirs.pt", torch.ones(2)
    torch.save({"a": weight, "b": weight}, file)
    found = read_tensors(file).by_name
    assert found["a"].data_ptr() == found["b"].data_ptr()


# --- what cannot be read --------------------------------------------------------------------------------------------


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none"):
        read_tensors(tmp_path / "nowhere.pt")
    for name in ("a.safetensors", "a.pt", "a"):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=r"an empty one \(0 bytes\)"):
            read_tensors(tmp_path / name)


def test_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not weights")
    with pytest.raises(DataError, match="got one that starts with b'not weigh'"):
        read_tensors(tmp_path / "notes.txt")


WRITERS: dict[str, Callable[[Path], object]] = {
    "theirs.safetensors": lambda file: save_file(STATE, file),
    "zip.pt": lambda file: torch.save(STATE, file),
    "older.pt": lambda file: torch.save(STATE, file, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    WRITERS[name](file)
    whole = file.read_bytes()
    for length in {*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1}:
        file.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_tensors(file)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95", b"\x10\0\0\0\0\0\0\0{"]),
    rest=st.binary(min_size=1, max_size=200),
    suffix=st.sampled_from([".safetensors", ".pt", ""]),
)
def test_bytes_of_any_kind_are_an_error_of_ours(tmp_path: Path, start: bytes, rest: bytes, suffix: str) -> None:
    file = tmp_path / f"any{suffix}"
    file.write_bytes(start + rest)
    with pytest.raises(DataError):
        read_tensors(file)


# --- what must not run ----------------------------------------------------------------------------------------------


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


def as_pickle(value: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(value))


def as_zip(value: object, file: Path) -> None:
    torch.save(value, file)


def as_older(value: object, file: Path) -> None:
    torch.save(value, file, _use_new_zipfile_serialization=False)


def as_tar(value: object, file: Path) -> None:
    """torch's oldest format."""
    with tarfile.open(file, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(value)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def as_bare_zip(value: object, file: Path) -> None:
    """Without what torch puts beside the pickle."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value))


def as_numpy(value: object, file: Path) -> None:
    with file.open("wb") as opened:
        np.save(opened, np.array([value], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("name", ["e.safetensors", "e.pt", "e.pth", "e.bin", "e.ckpt", "e"])
@pytest.mark.parametrize("write", [as_pickle, as_zip, as_older, as_tar, as_bare_zip, as_numpy])
@pytest.mark.parametrize(
    "nest", [lambda evil: evil, lambda evil: {"state_dict": {**STATE, "x": evil}}], ids=["", "deep"]
)
def test_a_malicious_pickle_never_runs(
    tmp_path: Path, name: str, write: Callable[[object, Path], None], nest: Callable[[Evil], object]
) -> None:
    file, canary = tmp_path / name, tmp_path / "canary"
    write(nest(Evil(canary)), file)
    with pytest.raises(DataError):
        read_tensors(file)
    assert not canary.exists()


def test_the_canary_sings_where_it_is_let(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    file, canary = tmp_path / "e.pt", tmp_path / "canary"
    as_zip(Evil(canary), file)
    torch.load(file, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("write", [as_zip, as_older])
def test_what_else_was_in_the_file_is_named(tmp_path: Path, write: Callable[[object, Path], None]) -> None:
    file = tmp_path / "e.pt"
    write({"state_dict": STATE, "settings": nn.Linear(1, 1)}, file)
    with pytest.raises(
        DataError, match=r"holds more than weights.*torch\.nn\.modules\.linear\.Linear.*keep its weights"
    ):
        read_tensors(file)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_a_program(tmp_path: Path) -> None:
    file = tmp_path / "program.pt"
    torch.jit.trace(nn.Linear(2, 1), torch.ones(1, 2)).save(str(file))  # type: ignore[no-untyped-call]
    with pytest.raises(DataError, match=r"got a TorchScript archive.*torch\.jit\.load"):
        read_tensors(file)
