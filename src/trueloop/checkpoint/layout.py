"""The names of a checkpoint's files and folders, and its manifest: what is in it, with a hash of every byte."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueloop import __version__
from trueloop.errors import CheckpointError, NewerFormatError

FOLDER = "checkpoints"
"""In the run's folder: it holds a folder for each checkpoint."""

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.json"
TENSORS = ".safetensors"
SHARD = "shard-"
WRITING = ".writing-"
GONE = ".gone-"


@dataclass(frozen=True)
class Written:
    """What was written into a file: its size in bytes and its sha256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself.

    Args:
        step: optimizer steps that were taken.
        epoch: the epoch that it stands in.
        saved: when, in ISO 8601 and UTC; nothing is decided by it, since clocks jump.
        why: what asked for it.
        metrics: of the last evaluation; NaN for what was not finite.
        exact: why a resume from it is not exact; None if it is.
        files: by name.
        trueloop: the version that wrote it.
    """

    step: int
    epoch: int
    saved: str
    why: str
    metrics: Mapping[str, float]
    exact: str | None
    files: Mapping[str, Written]
    trueloop: str = __version__


def folder_name(step: int, number: int = 1) -> str:
    """The folder of a checkpoint: the first of its step, the second, and so on.

    Example:
        >>> folder_name(120), folder_name(120, 2)
        ('step-00000120', 'step-00000120-2')
    """
    return f"step-{step:08d}" + (f"-{number}" if number > 1 else "")


def parse_folder_name(name: str) -> tuple[int, int] | None:
    """Step and number; None if it is not the name of a checkpoint.

    Example:
        >>> parse_folder_name("step-00000120-2"), parse_folder_name("damaged-step-00000120")
        ((120, 2), None)
    """
    match = _STEP.fullmatch(name)
    if not match:
        return None
    step, number = int(match[1]), int(match[2] or 1)
    return (step, number) if folder_name(step, number) == name else None


def shard_name(number: int) -> str:
    """The file of a process's parts, where tensors lie in parts on several of them.

    Example:
        >>> shard_name(1), is_shard(shard_name(1)), is_shard("model.safetensors")
        ('shard-00001.safetensors', True, False)
    """
    return f"{SHARD}{number:05d}{TENSORS}"


def is_shard(name: str) -> bool:
    """Whether a file holds parts of tensors."""
    return name.startswith(SHARD) and name.endswith(TENSORS)


def placed(folder: Path) -> Path:
    """Where a folder is: what is called ``.`` or ``..`` has a name there, and a parent.

    Other names stay as they were given: ``checkpoints`` may be a link to a larger disk.

    Example:
        >>> placed(Path(".")) == Path.cwd(), placed(Path("..")) == Path.cwd().parent
        (True, True)
    """
    return folder.resolve() if ".." in folder.parts else folder.absolute()


def checkpoints_of(run: Path) -> Path:
    """Where a run's checkpoints lie; their folder itself is as good as the run's (a run may be called ``checkpoints``).

    Example:
        >>> checkpoints_of(Path("runs/mine")).as_posix(), checkpoints_of(Path("runs/mine/checkpoints")).as_posix()
        ('runs/mine/checkpoints', 'runs/mine/checkpoints')
    """
    return run if placed(run).name == FOLDER and not (run / FOLDER).is_dir() else run / FOLDER


def is_plain(name: str) -> bool:
    """Whether a name may stand in a manifest: of a file right here, never of one elsewhere.

    Example:
        >>> is_plain("model.safetensors"), is_plain("../model.safetensors"), is_plain(".lock")
        (True, False, False)
    """
    return _PLAIN.fullmatch(name) is not None


def serialise(manifest: Manifest) -> bytes:
    """The manifest's file. There is one way to write a manifest, so that any other bytes are damage.

    Example:
        >>> manifest = Manifest(3, 0, "2030-01-01T00:00:00+00:00", "every 3 steps", {"loss": 0.5}, None, {})
        >>> parse(serialise(manifest)) == manifest
        True
    """
    fields: dict[str, Any] = {
        "format": FORMAT,
        "trueloop": manifest.trueloop,
        "step": manifest.step,
        "epoch": manifest.epoch,
        "saved": manifest.saved,
        "why": manifest.why,
        "metrics": {str(name): _finite(float(value)) for name, value in manifest.metrics.items()},
        "exact": manifest.exact,
        "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in manifest.files.items()},
    }
    return _canonical({**fields, "sha256": _sha256(fields)})


def parse(data: bytes) -> Manifest:
    """The manifest in a file's bytes.

    Raises:
        NewerFormatError: a newer trueloop wrote it.
        CheckpointError: it is not as it was written.
    """
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict) or _canonical(fields) != data:
            raise ValueError("not what serialise() writes")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{MANIFEST} is not as it was written: a bit has flipped, or it was changed") from error
    sha256 = fields.pop("sha256", None)
    if sha256 != _sha256(fields):
        raise CheckpointError(f"{MANIFEST}: its sha256 is not the one that was written: a bit has flipped")
    its_format = fields.pop("format", None)
    if type(its_format) is int and its_format > FORMAT:
        theirs = fields.get("trueloop", "?")
        raise NewerFormatError(
            f"written by format {its_format} of trueloop {theirs}; this one ({__version__}) reads up to {FORMAT}; "
            f"install trueloop>={theirs}"
        )
    try:
        if type(its_format) is not int or its_format != FORMAT:
            raise ValueError(f"format {its_format!r}")
        return _manifest(**fields)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{MANIFEST} is none of format {FORMAT}: {error}") from error


_STEP = re.compile(r"step-([0-9]{8,18})(?:-([0-9]{1,9}))?")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def _sha256(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(fields)).hexdigest()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _manifest(
    *,
    trueloop: object,
    step: object,
    epoch: object,
    saved: object,
    why: object,
    metrics: object,
    exact: object,
    files: object,
) -> Manifest:
    """Each field of the type that it must be of; its names are the manifest's."""
    return Manifest(
        step=_count("step", step),
        epoch=_count("epoch", epoch),
        saved=_text("saved", saved),
        why=_text("why", why),
        metrics={name: _metric(name, value) for name, value in _object("metrics", metrics).items()},
        exact=None if exact is None else _text("exact", exact),
        files={name: _written(name, value) for name, value in _object("files", files).items()},
        trueloop=_text("trueloop", trueloop),
    )


def _count(name: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is {value!r}, expected a count")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, expected a text")
    return value


def _object(name: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r}, expected an object")
    return value


def _metric(name: str, value: object) -> float:
    if value is not None and type(value) is not float:
        raise ValueError(f"the metric {name} is {value!r}, expected a number or null")
    return math.nan if value is None else value


def _written(name: str, value: object) -> Written:
    if not is_plain(name) or name == MANIFEST:
        raise ValueError(f"{name!r} is no name of a file of a checkpoint")
    fields = _object(name, value)
    size, sha256 = _count(name, fields.get("size")), _text(name, fields.get("sha256"))
    if fields.keys() != {"size", "sha256"} or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{name} has no size and sha256")
    return Written(size, sha256)
