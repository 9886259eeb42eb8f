"""From what stands on the command line to a recipe's function."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from trueloop.errors import ArgumentError, UnknownNameError

BUNDLED = Path(__file__).parents[1] / "recipes"


class RecipeFunction(NamedTuple):
    """A recipe's function, and how to find it again."""

    name: str
    """Short: the function's own."""
    reference: str
    """As it was given, with the file's path made absolute: it holds from any working directory."""
    function: Callable[..., Any]


def find(reference: str) -> RecipeFunction:
    """The recipe that a reference stands for.

    Args:
        reference: a bundled recipe's name, ``file.py:function``, or ``package.module:function``, where the package is
            looked for in the working directory too.

    Raises:
        ArgumentError: no such file or module, or no function is named. What the module itself raises passes.
        UnknownNameError: no such recipe, or no such function in the module; the nearest is offered.

    Example:
        >>> find("train.py:mine")
        Traceback (most recent call last):
        trueloop.errors.ArgumentError: expected a file with a recipe, found none (train.py)
    """
    place, _, name = reference.rpartition(":")
    if not place and not reference.endswith(".py"):
        return _bundled(reference)
    if not place or not name:
        raise ArgumentError(
            f"expected a recipe as file.py:function, got {reference!r}; name the function after a colon"
        )
    if place.endswith(".py"):
        module = _from_file(Path(place))
        reference = f"{Path(place).resolve()}:{name}"
    else:
        module = _from_package(place)
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
        raise UnknownNameError(f"recipe in {place}:", name, [key for key in own if not key.startswith("_")])
    return RecipeFunction(name, reference, function)


def bundled() -> dict[str, str]:
    """The bundled recipes: what each is, by its name; read from their text, for importing one imports torch.

    Example:
        >>> "torch" in bundled()
        False
    """
    return {
        file.stem: summary
        for file in sorted(BUNDLED.glob("*.py"))
        if (summary := _summary(file.read_text(encoding="utf-8"), file.stem)) is not None
    }


def _summary(source: str, name: str) -> str | None:
    """The first line of the docstring of the function called ``name``; None if there is no such function."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return None


def _bundled(name: str) -> RecipeFunction:
    known = bundled()
    if name not in known:
        raise UnknownNameError("recipe", name, known)
    return RecipeFunction(name, name, getattr(importlib.import_module(f"trueloop.recipes.{name}"), name))


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ArgumentError("expected a file with a recipe, found none", file=path)
    path = path.resolve()
    # Under its own name, and from its own folder: so it finds its neighbours, and a spawned worker finds it.
    name = path.stem
    there = sys.modules.get(name)
    if there is not None and getattr(there, "__file__", None) == str(path):
        return there
    if there is not None or find_spec(name) is not None:
        name = f"recipe_{name}"  # a file called torch.py must not take torch's place
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"  # noqa: PT018
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_package(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        raise ArgumentError(
            f"expected an importable module, got {name!r}: there is no module {error.name!r}; for a file, write "
            f"{name.replace('.', '/')}.py:function"
        ) from error
