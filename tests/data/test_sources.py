"""The bundled sources, found, fetched, and checked."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from trueloop.data import digits, fashion_mnist
from trueloop.data.sources.fashion_mnist import DEBIAN, MD5, found
from trueloop.data.sources.idx import read_idx
from trueloop.errors import DataError

LABELS = "t10k-labels-idx1-ubyte.gz"


def test_digits() -> None:
    images, labels = digits()
    assert images.shape == (1797, 1, 8, 8)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    assert sorted(set(labels.tolist())) == list(range(10))


@pytest.mark.data
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="apt-get install dataset-fashion-mnist")
@pytest.mark.parametrize(("train", "samples"), [(True, 60000), (False, 10000)])
def test_fashion_mnist(train: bool, samples: int) -> None:
    images, labels = fashion_mnist(train)
    assert images.shape == (samples, 28, 28)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert labels.bincount().tolist() == [samples // 10] * 10
    assert labels[0] == 9  # an ankle boot, in both parts


_gzip = partial(gzip.compress, mtime=0)


def packed(shape: tuple[int, ...], values: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape) + values


def test_idx(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "images", tmp_path / "images.gz"
    plain.write_bytes(packed((2, 1, 3), bytes(range(6))))
    zipped.write_bytes(_gzip(plain.read_bytes()))
    assert read_idx(plain).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    assert torch.equal(read_idx(plain), read_idx(zipped))


WHOLE = _gzip(packed((300,), bytes(range(100)) * 3))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:-9],
        WHOLE[:40] + bytes([WHOLE[40] ^ 1]) + WHOLE[41:],
        b"<html>not found</html>",
        _gzip(b"<html>not found</html>"),
        _gzip(packed((3,), b"ab")),
        _gzip(packed((1,), b"ab")),
        _gzip(packed((1, 2), b"")[:7]),
    ],
    ids=["nothing", "cut off", "flipped bit", "a page", "a packed page", "too short", "too long", "no header"],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.gz") as info:
        read_idx(path)
    assert info.value.file == path


def test_trueloop_data_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for name, shape in (("t10k-images-idx3-ubyte", (10000, 28, 28)), ("t10k-labels-idx1-ubyte", (10000,))):
        (folder / name).write_bytes(packed(shape, bytes(torch.Size(shape).numel())))
    monkeypatch.setenv("TRUELOOP_DATA", str(tmp_path))
    assert int(fashion_mnist(train=False)[0].sum()) == 0
    (folder / "t10k-labels-idx1-ubyte").write_bytes(packed((3,), b"abc"))
    with pytest.raises(DataError, match=r"expected an array of shape \(10000,\), got \(3,\)"):
        fashion_mnist(train=False)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a real server that serves it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler: Any = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_download_is_checked_and_kept(
    tmp_path: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    cache = tmp_path / "cache"
    (folder / LABELS).write_bytes(WHOLE)
    with pytest.raises(DataError, match="expected the MD5 checksum"):
        found(LABELS, [cache], cache, address)
    assert not cache.exists()
    monkeypatch.setitem(MD5, LABELS, hashlib.md5(WHOLE).hexdigest())
    path = found(LABELS, [cache], cache, address)
    assert path.read_bytes() == WHOLE
    assert list(cache.iterdir()) == [path]
    (folder / LABELS).unlink()
    assert found(LABELS, [cache], cache, address) == path


def test_if_all_fails_the_error_names_all_three_ways(tmp_path: Path, mirror: tuple[Path, str]) -> None:
    with pytest.raises(DataError) as info:
        found(LABELS, [tmp_path], tmp_path, mirror[1])
    for way in ("TRUELOOP_DATA", "apt-get install dataset-fashion-mnist", mirror[1]):
        assert way in str(info.value)
