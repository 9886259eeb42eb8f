"""What a name may stand for while a script is read: known things, results of known operations, and the unknown.

Unknown is a value like the others, and nothing is ever invented: what passes through the unknown is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.units import Unit


class Turn(NamedTuple):
    """One turn of a loop: which time the loop was entered, its statement, and the how-manieth turn."""

    loop: int
    node: cst.CSTNode
    number: int


class Branch(NamedTuple):
    """One arm of a condition that could not be decided; ``key`` is its text, the same wherever the same is asked."""

    key: str
    arm: int


class At(NamedTuple):
    """Where something happened: the file, and the loops, calls and conditions around it, the outermost first."""

    unit: Unit
    loops: tuple[Turn, ...]
    calls: tuple[cst.CSTNode, ...]
    branches: tuple[Branch, ...]


class Value:
    """The base of all."""

    __slots__ = ()


Args = tuple[Value, ...]
Kwargs = dict[str, Value]
"""What a call is given by place, and by name."""


@dataclass(slots=True, eq=False, repr=False)
class Unknown(Value):
    """Something of which no more is known than where it came from: ``of`` what, ``via`` which attribute or call."""

    name: str = ""
    of: Value | None = None
    via: str = ""
    inputs: tuple[Value, ...] = ()
    kind: str = ""  # the qualified name that its annotation gives
    attrs: dict[Any, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False, repr=False)
class Constant(Value):
    """A literal, or what follows from literals."""

    value: Any


@dataclass(slots=True, eq=False, repr=False)
class Named(Value):
    """A thing of a library by its full name: ``torch.nn.Linear``."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Scope:
    """The names of a module, a function's call or a class; each looks further in its parent."""

    names: dict[Any, Value]
    parent: Scope | None = None
    outer: dict[str, Scope] = field(default_factory=dict)  # global and nonlocal names, and where they live


@dataclass(slots=True, eq=False, repr=False)
class Function(Value):
    """A function of the user's, with the scope that it closes over."""

    name: str
    node: cst.FunctionDef | cst.Lambda
    scope: Scope
    unit: Unit
    owner: Class | None = None
    defaults: dict[str, Value] = field(default_factory=dict)
    decorators: tuple[str, ...] = ()
    grad: bool | None = None  # by its decorators; None if they don't say
    around: Function | None = None  # what a decorator of the user's makes of it, which calls it in turn


@dataclass(slots=True, eq=False, repr=False)
class Class(Value):
    """A class of the user's."""

    name: str
    node: cst.ClassDef
    bases: tuple[Value, ...]
    attrs: dict[Any, Value]
    unit: Unit

    def line(self) -> Iterator[Class | str]:
        """Itself, its bases and theirs: classes of the user's, names of libraries' ones; ``""`` for an unknown one."""
        yield self
        for base in self.bases:
            if isinstance(base, Class):
                yield from base.line()
            else:
                yield base.name if isinstance(base, Named) else ""

    def find(self, name: str) -> Value | None:
        """What its instances find under a name."""
        return next((one.attrs[name] for one in self.line() if isinstance(one, Class) and name in one.attrs), None)


@dataclass(slots=True, eq=False, repr=False)
class Object(Value):
    """An instance of a user's class, or of a library's by its name: a layer, a loss, an optimizer, a loader."""

    cls: Class | str
    args: tuple[Value, ...]
    kwargs: dict[str, Value]
    node: cst.CSTNode
    at: At
    attrs: dict[Any, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The library class that it is, or descends from; ``""`` if from none, or from an unknown one."""
        if isinstance(self.cls, str):
            return self.cls
        return next((one for one in self.cls.line() if isinstance(one, str) and one != "object"), "")

    @property
    def name(self) -> str:
        """The class's name, as it is said."""
        return self.cls.name if isinstance(self.cls, Class) else self.cls.rpartition(".")[2]

    def option(self, name: str, place: int | None = None) -> Value | None:
        """What was given for an argument, by name or by place; None if nothing was."""
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[place] if place is not None and place < len(self.args) else None


@dataclass(slots=True, eq=False, repr=False)
class Bound(Value):
    """A user's function with its ``self``."""

    function: Function
    of: Value


@dataclass(slots=True, eq=False, repr=False)
class Method(Value):
    """A method of a thing that is not the user's, not yet called."""

    of: Value
    name: str


@dataclass(slots=True, eq=False, repr=False)
class Super(Value):
    """``super()`` in a method."""

    owner: Class
    of: Value


@dataclass(slots=True, eq=False, repr=False)
class Tensor(Value):
    """A tensor by what made it: the operation, its inputs, and whether it carries a graph (None: unknown)."""

    op: str
    inputs: tuple[Value, ...]
    options: dict[str, Value]
    graph: bool | None
    node: cst.CSTNode
    at: At
    layer: Object | None = None
    attrs: dict[Any, Value] = field(default_factory=dict)


@dataclass(slots=True, eq=False, repr=False)
class Items(Value):
    """A list, tuple, set (``items``) or dict (keys in ``attrs["keys"]``); of unknown length if ``each`` stands alone.

    The content stands in ``attrs``, where the trail can take changes back: ``items`` a tuple, or ``each`` one value.
    """

    kind: str
    node: cst.CSTNode
    at: At
    attrs: dict[Any, Any] = field(default_factory=dict)

    @property
    def items(self) -> tuple[Value, ...] | None:
        """The values, if each is known."""
        return self.attrs.get("items")

    @property
    def pairs(self) -> dict[Any, Value] | None:
        """Of a dict with known keys: its values by key."""
        return self.attrs.get("pairs")

    def all(self) -> tuple[Value, ...]:
        """The values that it may hold."""
        if self.pairs is not None:
            return tuple(self.pairs.values())
        each = self.attrs.get("each")
        return (self.items or ()) + ((each,) if each is not None else ())


@dataclass(slots=True, eq=False, repr=False)
class Module(Value):
    """A module of the user's that was imported."""

    scope: Scope
    unit: Unit


@dataclass(slots=True, eq=False, repr=False)
class Either(Value):
    """One of several, by conditions that were not decided."""

    options: tuple[Value, ...]


NONE = Constant(None)
MOST = 3  # options that are kept apart


def join(one: Any, other: Any) -> Any:
    """What a name stands for where two ways meet.

    Example:
        >>> join(Constant(1), Constant(1)).value
        1
        >>> [option.value for option in join(Constant(1), NONE).options]
        [1, None]
    """
    if one is other:
        return one
    if not isinstance(one, Value) or not isinstance(other, Value):
        return one if one == other else None
    found: list[Value] = []
    for value in (*options(one), *options(other)):
        if not any(value is seen or _equal(value, seen) for seen in found):
            found.append(value)
    if len(found) == 1:
        return found[0]
    return Either(tuple(found)) if len(found) <= MOST else Unknown()


def options(value: Value) -> tuple[Value, ...]:
    """The value, or the several that it may be."""
    return value.options if isinstance(value, Either) else (value,)


def _equal(one: Value, other: Value) -> bool:
    if isinstance(one, Constant) and isinstance(other, Constant):
        return type(one.value) is type(other.value) and bool(one.value == other.value)
    return isinstance(one, Named) and isinstance(other, Named) and one.name == other.name


def truth(value: Value) -> bool | None:
    """Whether it counts as true in a condition; None if that is not known."""
    if isinstance(value, Constant):
        return bool(value.value)
    if isinstance(value, Items):
        if value.pairs is not None:
            return bool(value.pairs)
        return None if value.items is None else bool(value.items)
    if isinstance(value, (Function, Bound, Class, Named, Object, Module, Method)):
        return True
    if isinstance(value, Either):
        answers = {truth(option) for option in value.options}
        return answers.pop() if len(answers) == 1 else None
    return None


def constant(value: Value | None, default: Any = None) -> Any:
    """A constant's own value; ``default`` for all else.

    Example:
        >>> constant(Constant(3)), constant(Unknown(), "?")
        (3, '?')
    """
    return value.value if isinstance(value, Constant) else default
