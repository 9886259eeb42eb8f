"""A recipe's typed parameters as flags, and back again from a run's folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from trueloop.cli.find import RecipeFunction, find
from trueloop.errors import ArgumentError

if TYPE_CHECKING:
    from trueloop.recipe import Recipe

_PLAIN = (bool, int, float, str, type(None))


def parse(
    found: RecipeFunction, arguments: Sequence[str], *, extra: Sequence[inspect.Parameter] = (), verb: str = "train"
) -> dict[str, Any]:
    """The recipe's arguments from flags; the defaults fill in the rest. Exits with 0 after ``--help``, 2 on an error.

    Args:
        found: the recipe; a flag's help is its line in the docstring's ``Args``.
        arguments: the flags.
        extra: further flags, keyword-only, which are no parameters of the recipe.
        verb: for the help.

    Raises:
        ArgumentError: the recipe has a parameter that cannot be a flag; or an empty text is given for a path.

    Example:
        >>> def tiny(epochs: int = 3, lr: float = 0.1): ...
        >>> parse(RecipeFunction("tiny", "tiny.py:tiny", tiny), ["--epochs", "5"])
        {'epochs': 5, 'lr': 0.1}
    """
    import tyro

    try:
        collector = _collector(found.function, extra)
        _check_paths(inspect.signature(collector).parameters.values(), arguments)
        given: dict[str, Any] = tyro.cli(collector, prog=f"trueloop {verb} {found.name}", args=list(arguments))
    except tyro.UnsupportedTypeAnnotationError as error:
        raise ArgumentError(f"recipe {found.name!r} has a parameter that cannot be a flag: {error}") from error
    return given


def describe(found: RecipeFunction, flags: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What ``run.json`` keeps of a recipe, enough to call it again by ``again``.

    The values of plain types are kept beside the flags, so that a later change of a default changes no old run.
    """
    plain = {name: value for name, value in given.items() if isinstance(value, _PLAIN)}
    return {"reference": found.reference, "flags": list(flags), "arguments": plain}


def again(described: Mapping[str, Any]) -> Recipe:
    """The recipe that ``describe`` described, called with the same arguments.

    Raises:
        ArgumentError: it no longer has one of its parameters, or is not to be found.
    """
    found = find(described["reference"])
    kept: dict[str, Any] = described["arguments"]
    has = inspect.signature(found.function).parameters
    gone = sorted(kept.keys() - has.keys())
    if gone:
        raise ArgumentError(
            f"recipe {found.name!r} no longer has the parameters {', '.join(gone)} that the run was made with; it has: "
            f"{', '.join(has)}"
        )
    return build(found, parse(found, described["flags"]) | kept)


def build(found: RecipeFunction, given: Mapping[str, Any]) -> Recipe:
    """Calls the recipe's function.

    Raises:
        ArgumentError: it returns something else than a ``Recipe``.
    """
    from trueloop.recipe import Recipe

    recipe = found.function(**given)
    if not isinstance(recipe, Recipe):
        raise ArgumentError(
            f"expected {found.name}() to return a trueloop.Recipe, got {type(recipe).__name__}; end it in "
            "return trueloop.Recipe(trainer, train=…, val=…, epochs=…, batch_size=…)"
        )
    return recipe


def _check_paths(parameters: Iterable[inspect.Parameter], arguments: Sequence[str]) -> None:
    """An empty text is a path to Python: the working directory. It is rarely meant; a shell's variable is not set."""
    paths = {f"--{parameter.name.replace('_', '-')}" for parameter in parameters if _is_path(parameter.annotation)}
    for argument, following in pairwise([*arguments, "--"]):
        flag, with_value, value = argument.partition("=")
        if flag.replace("_", "-") in paths and not (value if with_value else following):
            raise ArgumentError(
                f"expected a path after {flag}, got an empty text; name one; is a shell's variable not set?"
            )


def _is_path(annotation: object) -> bool:
    return annotation is Path or any(map(_is_path, get_args(annotation)))


def _collector(function: Callable[..., Any], extra: Sequence[inspect.Parameter]) -> Callable[..., dict[str, Any]]:
    """A function that looks like the recipe's to tyro, and returns what it was given instead of building a model."""
    signature = inspect.signature(function, eval_str=True)
    parameters = list(signature.parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ArgumentError(f"a recipe's parameters are flags and have names; {parameter} of {signature} has none")
    taken = {parameter.name for parameter in parameters} & {parameter.name for parameter in extra}
    if taken:
        raise ArgumentError(f"--{', --'.join(sorted(taken))} is a flag of every recipe; call the parameter otherwise")

    def collect(**given: Any) -> dict[str, Any]:
        return given

    every = [*parameters, *extra]
    collect.__name__ = function.__name__
    collect.__doc__ = inspect.getdoc(function)
    collect.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    collect.__annotations__ = {p.name: p.annotation for p in every if p.annotation is not p.empty}
    return collect
