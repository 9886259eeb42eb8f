"""``trueloop export RUN``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from trueloop.cli.checkpoints import folder_of, size
from trueloop.errors import ArgumentError, CheckpointError, RunFolderError

if TYPE_CHECKING:
    from torch import Tensor


def run(arguments: Sequence[str]) -> int:
    """Writes the weights of a run's newest whole checkpoint as one safetensors file."""
    tyro.cli(export, prog="trueloop export", args=list(arguments))
    return 0


def export(
    run: Annotated[Path, tyro.conf.Positional],
    step: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None,
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("model.safetensors"),
    average: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """The weights of a run's newest whole checkpoint, as one safetensors file that any library reads.

    Args:
        run: the run's folder, or that of one checkpoint.
        step: the checkpoint of this step instead of the newest.
        output: the file to write.
        average: the averaged weights (EMA, SWA) instead, if the run keeps them.
        overwrite: replace the file if there is one.
    """
    check_output(output, overwrite=overwrite)
    from trueloop.checkpoint.layout import parse_folder_name
    from trueloop.checkpoint.store import newest, read
    from trueloop.checkpoint.weights import NAME, weights_of

    passed_over: list[str] = []
    if parse_folder_name(run.resolve().name):
        stored = read(run.resolve())
    else:
        try:
            stored, passed_over = newest(folder_of(run), step)
        except (CheckpointError, RunFolderError) as error:
            if (run / NAME).is_file():
                error.add_note(f"the weights that the run ended with are in {run / NAME}")
            raise
    for line in passed_over:
        print(line)
    if step not in (None, stored.entry.step):
        raise ArgumentError(f"expected the folder of a run with --step {step}, got a checkpoint's", file=run)
    what = "averaged weights" if average else "weights"
    tensors, lines = weights_of(stored, average=average)
    for line in lines:
        print(line)
    write(tensors, output, f"the {what} of step {stored.entry.step}")


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raises before anything is read, if the output could not be written at the end.

    Example:
        >>> check_output(Path("model.pt"), overwrite=False)
        Traceback (most recent call last):
        trueloop.errors.ArgumentError: expected the output as a file .safetensors, got --output model.pt
    """
    if output.suffix != ".safetensors":
        raise ArgumentError(f"expected the output as a file .safetensors, got --output {output}")
    if output.is_dir():
        raise ArgumentError("expected the output as a file, got a folder", file=output)
    if output.exists() and not overwrite:
        raise ArgumentError("the output is there already; name another with --output, or give --overwrite", file=output)


def write(tensors: Mapping[str, Tensor], output: Path, what: str) -> None:
    """Writes the tensors, and says what was written."""
    from safetensors import SafetensorError

    from trueloop.checkpoint.weights import write_tensors

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        twins = write_tensors(tensors, output)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        told = getattr(error, "strerror", None) or error
        raise ArgumentError(f"the output cannot be written: {told}", file=output) from error
    for name, twin in twins.items():
        print(f"{name} is {twin} (tied weights), and is written once")
    count = sum(tensor.numel() for name, tensor in tensors.items() if name not in twins)
    print(
        f"{what}: {len(tensors) - len(twins):,} tensors, {count:,} numbers, {size(output.stat().st_size)} in {output}"
    )
