"""Fashion-MNIST: 70,000 grey images of clothes, 28 × 28 pixels, ten classes.

Source: H. Xiao, K. Rasul and R. Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms*, 2017, https://arxiv.org/abs/1708.07747, https://github.com/zalandoresearch/fashion-mnist (MIT).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from torch import Tensor

from trueloop.data.sources.idx import read_idx
from trueloop.errors import DataError

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts it."""
MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
"""The authors' own, as their README gives it."""

# MD5 of the files as the authors publish them (the table in their README, also in torchvision's datasets/mnist.py).
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def fashion_mnist(train: bool = True) -> tuple[Tensor, Tensor]:
    """Images uint8 (n, 28, 28) and labels int64 (n,), n = 60000 for the training part, 10000 for the test part.

    Looked for in ``$TRUELOOP_DATA``, its folder ``fashion-mnist``, ``/usr/share/datasets/fashion-mnist`` and the cache
    (``~/.cache/trueloop/fashion-mnist``), in this order; if it is in none, it is downloaded into the cache (30 MB).

    Raises:
        DataError: it is nowhere and cannot be downloaded (the message names all three ways); a file is damaged.

    Example:
        >>> images, labels = fashion_mnist(train=False)  # doctest: +SKIP
        >>> images.shape, CLASSES[labels[0]]  # doctest: +SKIP
        (torch.Size([10000, 28, 28]), 'ankle boot')
    """
    part, samples = ("train", 60000) if train else ("t10k", 10000)
    images_at = found(f"{part}-images-idx3-ubyte.gz", places(), cache(), MIRROR)
    labels_at = found(f"{part}-labels-idx1-ubyte.gz", places(), cache(), MIRROR)
    images, labels = read_idx(images_at), read_idx(labels_at)
    for path, array, shape in ((images_at, images, (samples, 28, 28)), (labels_at, labels, (samples,))):
        if array.shape != shape:
            raise DataError(f"expected an array of shape {shape}, got {tuple(array.shape)}; delete the file", file=path)
    return images, labels.long()


def places() -> list[Path]:
    """The folders to look in, in order."""
    own = os.environ.get("TRUELOOP_DATA")
    return ([Path(own), Path(own) / "fashion-mnist"] if own else []) + [DEBIAN, cache()]


def cache() -> Path:
    """The folder for downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trueloop" / "fashion-mnist"


def found(name: str, folders: Sequence[Path], cache: Path, mirror: str) -> Path:
    """The file in the first folder that has it (packed or not), or in the cache, downloaded."""
    for folder in folders:
        for path in (folder / name, folder / name.removesuffix(".gz")):
            if path.is_file():
                return path
    try:
        return _downloaded(f"{mirror}/{name}", MD5[name], cache / name)
    except OSError as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise DataError(
            f"Fashion-MNIST is not here ({name} is not in {', '.join(map(str, folders))}) and could not be downloaded "
            f"({error}). One of three ways: put its four .gz files into a folder and set TRUELOOP_DATA to it; or "
            "apt-get install dataset-fashion-mnist; or run again with a network that reaches "
            f"{mirror}"
        ) from error


def _downloaded(url: str, md5: str, path: Path) -> Path:
    with urlopen(url, timeout=30) as response:
        content: bytes = response.read()
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != md5:
        raise OSError(f"{url}: expected the MD5 checksum {md5}, got {got}, {len(content)} bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as aside:  # never a half file under the true name
        aside.write(content)
    os.replace(aside.name, path)
    return path
