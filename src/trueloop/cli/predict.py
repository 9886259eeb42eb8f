"""``trueloop predict RUN``."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from trueloop.cli.reopen import reopen
from trueloop.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.recipe import Recipe

_File = tyro.conf.arg(metavar="FILE", help_behavior_hint="")


def run(arguments: Sequence[str]) -> int:
    """Writes the outputs of a run's weights to a file."""
    tyro.cli(predict, prog="trueloop predict", args=list(arguments))
    return 0


def predict(
    run: Annotated[Path, tyro.conf.Positional],
    input: Annotated[Path | None, _File] = None,
    output: Annotated[Path | None, _File] = None,
) -> None:
    """The outputs of a run's weights, in the order of the input, written to a file.

    Args:
        run: the run's folder, as `trueloop train` made it.
        input: a .npy or .npz file of inputs, as the model takes them (the arrays of an .npz in their order); by default
            the validation data of the recipe.
        output: the .npz file to write: `outputs`; and `predicted`, the number of each sample's class, with `classes`,
            their names, if the recipe names classes. By default RUN/predictions.npz.
    """
    import numpy as np

    recipe = reopen(run)
    output = run / "predictions.npz" if output is None else output
    if output.suffix != ".npz":  # numpy would add it, and the file would not be where it was asked for
        raise ArgumentError(f"expected the output as a file .npz, got --output {output}")
    if input is None:
        if recipe.val is None:
            raise ArgumentError("the recipe has no validation data; give inputs: --input FILE.npy")
        outputs = recipe.trainer.predict(recipe.val, batch_size=recipe.batch_size)
    else:
        given = _inputs(input, recipe)
        outputs = recipe.trainer.predict(given, batch_size=recipe.batch_size or 256, has_target=False)
    arrays = _arrays(outputs, recipe)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        np.savez(output, **arrays)
    except OSError as error:
        raise ArgumentError(f"the output cannot be written: {error.strerror}", file=output) from error
    print(f"{', '.join(f'{name} {array.shape}' for name, array in arrays.items())} in {output}")


def _inputs(file: Path, recipe: Recipe) -> Tensor | tuple[Tensor, ...]:
    import numpy as np
    import torch

    try:
        loaded = np.load(file, allow_pickle=False)  # a pickle runs what it is told
        arrays = [loaded[name] for name in loaded.files] if isinstance(loaded, np.lib.npyio.NpzFile) else [loaded]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the inputs cannot be read, a .npy or .npz file of numbers is expected: {error}", file=file
        ) from error
    if not arrays or any(array.dtype.kind not in "biuf" for array in arrays):
        raise DataError(
            "expected arrays of numbers, got " + (", ".join(str(a.dtype) for a in arrays) or "none"), file=file
        )
    weights = next((p.dtype for p in recipe.trainer.model.parameters() if p.is_floating_point()), torch.float32)
    tensors = []
    for array in arrays:
        tensor = torch.from_numpy(array)
        if tensor.is_floating_point() and tensor.dtype != weights:
            print(
                f"inputs {array.dtype} are taken as {str(weights).removeprefix('torch.')}, as the model's weights are"
            )
            tensor = tensor.to(weights)
        tensors.append(tensor)
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def _arrays(outputs: Any, recipe: Recipe) -> dict[str, Any]:
    import numpy as np
    import torch

    if isinstance(outputs, torch.Tensor):
        arrays = {"outputs": _numpy(outputs)}
    elif isinstance(outputs, dict):
        arrays = {str(name): _numpy(part) for name, part in outputs.items()}
    else:
        arrays = {f"outputs_{i}": _numpy(part) for i, part in enumerate(outputs)}
    if recipe.classes is not None and isinstance(outputs, torch.Tensor):
        from trueloop.cli.classes import predict_classes

        arrays["predicted"] = predict_classes(outputs).numpy()
        arrays["classes"] = np.array(list(recipe.classes))
    return arrays


def _numpy(tensor: Tensor) -> Any:
    return (tensor.float() if tensor.dtype.itemsize == 2 and tensor.is_floating_point() else tensor).numpy()
