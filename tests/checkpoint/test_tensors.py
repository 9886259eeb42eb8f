"""The safetensors files that we write ourselves are read by the library, for every dtype."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor

from trueloop.checkpoint.disk import Disk
from trueloop.checkpoint.tensors import DTYPES, chunks


def random_bits(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    flat = torch.randint(0, 256, (int(np.prod(shape)) * dtype.itemsize,), generator=generator).to(torch.uint8)
    return flat.view(dtype).reshape(shape)


def same_bits(first: Tensor, second: Tensor) -> bool:
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))
    )


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_library_reads_every_dtype(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = random_bits(shape, dtype)
    file = tmp_path / "a.safetensors"
    Disk().write(file, chunks({"a": tensor}))
    with safe_open(file, "pt") as opened:
        by_name = opened.get_tensor("a")
    for found in (load_file(file)["a"], load(file.read_bytes())["a"], by_name):
        assert same_bits(found, tensor)


@given(
    dtypes=st.lists(st.sampled_from(list(DTYPES)), max_size=6),
    shape=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    names=st.lists(st.text(min_size=1), min_size=6, max_size=6, unique=True),
)
def test_many_tensors_of_all_dtypes(dtypes: list[torch.dtype], shape: tuple[int, ...], names: list[str]) -> None:
    tensors = {name: random_bits(shape, dtype, seed) for seed, (name, dtype) in enumerate(zip(names, dtypes))}  # noqa: B905
    found = load(b"".join(chunks(tensors)))
    assert found.keys() == tensors.keys()
    assert all(same_bits(found[name], tensors[name]) for name in tensors)


def test_the_bytes_are_those_of_the_library_but_for_the_metadata() -> None:
    tensors = {"b": torch.arange(5.0), "a": torch.arange(3), "c": torch.arange(2, dtype=torch.uint8)}
    ours, theirs = b"".join(chunks(tensors)), save(tensors, {"format": "pt"})
    assert parted(ours) == parted(theirs)


def parted(file: bytes) -> tuple[dict[str, object], bytes]:
    end = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:end]), file[end:]


@pytest.mark.parametrize("length", range(8))
def test_every_tensor_is_aligned_to_its_items(length: int) -> None:
    tensors = {f"{n:0{3 + length % 2}}": torch.ones(3, dtype=dtype) for n, dtype in enumerate(DTYPES)}
    file = b"".join(chunks({**tensors, "a" * length: torch.ones(1)}))
    header, data = parted(file)
    del header["__metadata__"]
    assert (len(file) - len(data)) % 8 == 0
    names = {name: dtype for dtype, name in DTYPES.items()}
    for entry in header.values():
        assert isinstance(entry, dict)
        assert entry["data_offsets"][0] % names[entry["dtype"]].itemsize == 0


def test_what_is_not_contiguous_or_lazy_is_written_by_its_values() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    lazy = torch.complex(base, base + 1)
    tensors = {
        "transposed": base.T,
        "strided": base[:, ::2],
        "expanded": torch.ones(1).expand(3),
        "conjugate": lazy.conj(),
        "negative": lazy.conj().imag,
        "negative and contiguous": torch._neg_view(base),
        "with a graph": torch.ones(2, requires_grad=True),
    }
    found = load(b"".join(chunks(tensors)))
    assert all(torch.equal(found[name], tensors[name].detach()) for name in tensors)


def test_contiguous_tensors_are_not_copied() -> None:
    tensor = torch.zeros(4, dtype=torch.uint8)
    header, body = chunks({"a": tensor})
    tensor[2] = 7
    assert bytes(body) == b"\0\0\7\0"
    assert isinstance(header, bytes)


def test_no_tensors_are_a_file_too() -> None:
    assert load(b"".join(chunks({}))) == {}
