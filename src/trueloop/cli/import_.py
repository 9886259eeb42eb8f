"""``trueloop import FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from trueloop.cli.export import check_output, write


def run(arguments: Sequence[str]) -> int:
    """Writes the weights of a file of torch's as one safetensors file."""
    tyro.cli(import_weights, prog="trueloop import", args=list(arguments))
    return 0


def import_weights(
    file: Annotated[Path, tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("model.safetensors"),
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """The weights of a file of torch's (.pt, .pth, .bin, .ckpt), as one safetensors file.

    The file is read with weights_only=True alone: it cannot run code. The names stay as they are.

    Args:
        file: a state dict, or a checkpoint that has one under a usual key (state_dict, model, ...).
        output: the file to write.
        overwrite: replace the file if there is one.
    """
    check_output(output, overwrite=overwrite)
    from trueloop.checkpoint.formats import read_tensors

    tensors, lines = read_tensors(file)
    for line in lines:
        print(line)
    write(tensors, output, f"the weights of {file.name}")
