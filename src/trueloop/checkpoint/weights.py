"""A model's weights in one safetensors file: written aside, synced, renamed; read without running code."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from trueloop.checkpoint import store
from trueloop.checkpoint.disk import DISK
from trueloop.checkpoint.encode import unpack
from trueloop.checkpoint.formats import Tensors, read_tensors
from trueloop.checkpoint.layout import MANIFEST, checkpoints_of, parse_folder_name, placed
from trueloop.checkpoint.names import fit, table
from trueloop.checkpoint.tensors import DTYPES, FORMAT
from trueloop.errors import ArgumentError, CheckpointError, DataError

NAME = "model.safetensors"


def save_weights(model: nn.Module, file: Path) -> Path:
    """Writes all weights and buffers; the file is there whole, or as it was before.

    Args:
        model: tied weights are written once.
        file: its folder must exist.

    Raises:
        ArgumentError: extra state of a module that is no tensor; a tensor of a dtype that safetensors does not know.

    Example:
        >>> import tempfile
        >>> file = save_weights(nn.Linear(2, 1), Path(tempfile.mkdtemp(), "model.safetensors"))
        >>> load_weights(nn.Linear(2, 1), file)
        []
    """
    _check_writable(model.state_dict())
    with _aside(file) as aside:
        save_model(model, str(aside), metadata=dict(FORMAT))
    return file


def load_weights(model: nn.Module, file: Path | str, *, strict: bool = True) -> list[str]:
    """Reads weights into a model; everything is looked at before the first tensor is changed.

    A file in torch's format (``.pt``, ``.pth``, ``.bin``, ``.ckpt``) is read with ``weights_only=True`` alone: it runs
    no code. The weights in it are looked for under the usual keys (``state_dict``, ``model``, …). A prefix that DDP,
    torch.compile or Lightning put before all names is taken off.

    Args:
        model: on any device; keeps its dtypes.
        file: of safetensors or of ``torch.save``; or the folder of a checkpoint, whose every byte is verified; or that
            of a run, whose ``model.safetensors`` is taken, or its newest whole checkpoint if there is none.
        strict: whether every name must fit. If not, what fits by name and shape is loaded, all else is left as it is.

    Returns:
        What was decided, a line each: the part of the file that was taken, a prefix taken off, numbers that were
        rounded; and with ``strict=False`` each name that was left out. Empty where there was nothing to decide.

    Raises:
        DataError: no such file; an empty or damaged one; one that holds more than weights. Or another architecture:
            a table of the names that are missing, unexpected or of another shape, with the nearest ones.
        CheckpointError: a checkpoint that is damaged; or none in the run is whole.
        ArgumentError: a model without memory of its own yet (lazy modules, the meta device).

    Example:
        >>> import tempfile
        >>> file = save_weights(nn.Linear(2, 1), Path(tempfile.mkdtemp(), "model.safetensors"))
        >>> load_weights(nn.Linear(2, 1, bias=False), file, strict=False)
        ['loaded 1 of 1 names of the model', 'not loaded, in the file, not in the model: bias (1,)']
    """
    file = Path(file)
    tensors, read = _read(file)
    try:
        own, decided = fitting(model, tensors, strict=strict)
    except DataError as error:
        raise DataError("\n".join([*read, str(error)]), file=file) from None
    model.load_state_dict(own, strict=False)
    return [*read, *decided]


def fitting(
    model: nn.Module, tensors: Mapping[str, object], *, strict: bool = True
) -> tuple[dict[str, Tensor], list[str]]:
    """What of a state dict goes into a model; nothing is changed yet.

    Args:
        model: as for ``load_weights``.
        tensors: by the names of the file; what is no tensor (extra state of modules) is passed over.
        strict: whether every name must fit.

    Returns:
        The tensors by the model's names, and what was decided, a line each.

    Raises:
        DataError: another architecture, with a table of the names that do not fit; with ``strict=False`` only if none
            does.
        ArgumentError: a model without memory of its own yet.

    Example:
        >>> fitting(nn.Linear(2, 1, bias=False), {"weights": torch.ones(1, 2)})
        Traceback (most recent call last):
        trueloop.errors.DataError: the weights are of another architecture, nothing was loaded: 0 of 1 ...
        in the model, not in the file: 1
          weight  (1, 2)  did you mean weights in the file?
        in the file, not in the model: 1
          weights  (1, 2)  did you mean weight in the model?
        give the weights of this model
    """
    own = _own(model)
    fits = fit(own, {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)})
    lines = fits.lines
    count = f"{len(fits.tensors):,} of {len(own):,} names of the model"
    if fits.misfits and (strict or not fits.tensors):
        what_to_do = "give the weights of this model"
        raise DataError(
            "\n".join(
                [
                    f"the weights are of another architecture, nothing was loaded: {count} fit",
                    *lines,
                    *table(fits.misfits),
                    f"{what_to_do}, or load what fits: {_WHAT_FITS}" if fits.tensors else what_to_do,
                ]
            )
        )
    if fits.misfits:
        lines = [*lines, f"loaded {count}"]
        lines += [f"not loaded, {misfit.what}: {misfit.name} {misfit.detail}" for misfit in fits.misfits]
    return fits.tensors, lines


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> dict[str, str]:
    """Writes a state dict as ``save_weights`` writes a model.

    Args:
        tensors: by name. Of several names of one tensor (tied weights) the first in the alphabet is written, as
            ``safetensors.torch.save_model`` does, so that its ``load_model`` takes the file.
        file: its folder must exist.

    Returns:
        The names that were not written, each with the one that stands for it.

    Example:
        >>> import tempfile
        >>> weight, file = torch.ones(2), Path(tempfile.mkdtemp(), "model.safetensors")
        >>> write_tensors({"head": weight, "embedding": weight}, file)
        {'head': 'embedding'}
        >>> read_tensors(file).by_name
        {'embedding': tensor([1., 1.])}
    """
    _check_writable(tensors)
    written: dict[str, Tensor] = {}
    first: dict[object, str] = {}
    twins: dict[str, str] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        memory = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and first.setdefault(memory, name) != name:
            twins[name] = first[memory]
        else:
            own = tensor.untyped_storage().nbytes() == tensor.nbytes  # the library refuses parts of a larger memory
            written[name] = tensor.contiguous() if own else tensor.clone(memory_format=torch.contiguous_format)
    with _aside(file) as aside:
        save_file(written, str(aside), metadata=FORMAT | twins)
    return twins


def weights_of(stored: store.Stored, *, average: bool = False) -> Tensors:
    """The model's state dict in a checkpoint.

    Args:
        stored: as ``store.read`` gave it.
        average: the averaged weights instead (``tl.optim.ema``, ``swa``).

    Raises:
        CheckpointError: the run keeps no average; or the checkpoint holds no model.
    """
    tree, path = stored.tree, stored.entry.path
    if not isinstance(tree, Mapping) or not tree.keys() >= {"model", "state"}:
        raise CheckpointError("expected a checkpoint of a run, with a model, got one without", file=path)
    packed = tree["state"]["averaged"] if average else tree["model"]
    if packed is None:
        raise CheckpointError("expected averaged weights, but the run keeps none", file=path)
    state = unpack(packed, stored.tensors.get("state.safetensors" if average else NAME, {}))
    if average:  # torch's AveragedModel: a counter, and the weights under a prefix
        state = {name.removeprefix("module."): value for name, value in state.items() if name != "n_averaged"}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    others = [name for name in state if name not in tensors]
    return Tensors(tensors, [f"left out, for it is no tensor: {', '.join(others)}"] * bool(others))


_WHAT_FITS = "trueloop.checkpoint.weights.load_weights(model, file, strict=False)"
"""The one call that takes a part: neither ``fit`` nor ``Trainer.resume`` does, for a resumed run is the same run."""


def _read(file: Path) -> Tensors:
    if not file.is_dir():
        if file.name == NAME and (file.parent / MANIFEST).is_file():  # a part of a checkpoint, which is verified whole
            return weights_of(store.read(file.parent))
        return read_tensors(file)
    if (file / MANIFEST).is_file() or parse_folder_name(placed(file).name):
        return weights_of(store.read(file))
    if (file / NAME).is_file():
        return Tensors(read_tensors(file / NAME).by_name, [f"the weights are those in {file / NAME}"])
    checkpoints = checkpoints_of(file)
    if checkpoints.is_dir():
        stored, passed_over = store.newest(checkpoints)
        tensors, lines = weights_of(stored)
        return Tensors(tensors, [*passed_over, f"the weights are those of {stored.entry.path}", *lines])
    inside = sorted(path.name for path in file.iterdir())
    raise DataError(
        f"expected a file of weights, or a folder with {NAME} or checkpoints, got a folder with "
        + (", ".join(inside[:10]) + (" …" if len(inside) > 10 else "") or "nothing in it"),
        file=file,
    )


def _own(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict as far as it is tensors; extra state of modules stays as it is."""
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    lazy = [name for name, value in own.items() if is_lazy(value)]
    if lazy:
        raise ArgumentError(
            f"the model has parameters without a shape yet ({lazy[0]}); run one batch through it before loading weights"
        )
    meta = [name for name, value in own.items() if value.device.type == "meta"]
    if meta:
        raise ArgumentError(
            f"the model has no memory yet: {meta[0]} is on the meta device; model.to_empty(device='cpu') gives it some"
        )
    return own


def _check_writable(state: Mapping[str, object]) -> None:
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"a safetensors file holds tensors alone, and {name} is {type(value).__name__}; give the module no "
                "extra state, or make a tensor of it"
            )
        if value.dtype not in DTYPES:
            raise ArgumentError(
                f"{name} is {str(value.dtype).removeprefix('torch.')}, which safetensors does not know; convert it"
            )


@contextlib.contextmanager
def _aside(file: Path) -> Iterator[Path]:
    """A file to be written beside ``file``: synced, and put in its place, if all went well."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.touch()
        mode = (
            aside.stat().st_mode
        )  # what the umask gives to every other file; safetensors lets nobody else read its own
        yield aside
        aside.chmod(stat.S_IMODE(mode))
        with aside.open("r+b") as written:
            os.fsync(written.fileno())
        aside.replace(file)
        DISK.sync_folder(file.parent)  # so that the name outlasts a power cut, as the bytes do
    finally:
        aside.unlink(missing_ok=True)
