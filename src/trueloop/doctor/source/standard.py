"""Functions and classes of Python's own, called by name: builtins, copies and containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trueloop.doctor.source import library
from trueloop.doctor.source.attributes import attribute
from trueloop.doctor.source.elements import element, elements
from trueloop.doctor.source.events import Operated
from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.modules import is_module
from trueloop.doctor.source.results import mixed, result
from trueloop.doctor.source.values import (
    Args,
    Class,
    Constant,
    Items,
    Kwargs,
    Named,
    Object,
    Tensor,
    Unknown,
    Value,
    constant,
)

if TYPE_CHECKING:
    import libcst as cst


def call_builtin(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """What one of Python's builtins gives."""
    how = _BUILTINS.get(name)
    if how is not None and (args or name in ("range", "zip", "dict", "list", "set", "tuple")):
        return how(m, args, kwargs, node)
    return Unknown(name, via="call", inputs=args)


def _items_of(kind: str) -> Callable[[Machine, Args, Kwargs, cst.CSTNode], Value]:
    def make(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
        if not args:
            return Items(kind, node, m.at, {"items": ()})
        over = args[0]
        if isinstance(over, Items) and over.pairs is None:
            return Items(kind, node, m.at, dict(over.attrs))
        if isinstance(over, Items):
            return Items(kind, node, m.at, {"items": tuple(elements(m, over, node))})
        return Items(kind, node, m.at, {"each": element(m, over, node)})

    return make


def _reversed(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """The other way round, where all of it is known."""
    over = args[0]
    if isinstance(over, Items) and over.pairs is None and over.items is not None and over.attrs.get("each") is None:
        return Items("list", node, m.at, {"items": over.items[::-1]})
    return _items_of("list")(m, args, kwargs, node)


def _enumerate(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    return _pairs_of(m, [None, args[0]], node)


def _zip(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    return _pairs_of(m, list(args), node)


def _pairs_of(m: Machine, over: list[Value | None], node: cst.CSTNode) -> Value:
    """Tuples of one element each; None counts."""
    known = [
        one.items for one in over if isinstance(one, Items) and one.attrs.get("each") is None and one.items is not None
    ]
    if known and len(known) == len([one for one in over if one is not None]):
        rows = []
        for number, row in enumerate(zip(*known, strict=False)):
            left = list(row)
            cells = tuple(Constant(number) if one is None else left.pop(0) for one in over)
            rows.append(Items("tuple", node, m.at, {"items": cells}))
        return Items("list", node, m.at, {"items": tuple(rows)})
    each = tuple(Unknown("number", kind="int") if one is None else element(m, one, node) for one in over)
    return Items("list", node, m.at, {"each": Items("tuple", node, m.at, {"items": each})})


def counted(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """``range(…)``"""
    if len(args) == 1 and constant(args[0]) in (0, 1):
        return Items("list", node, m.at, {"items": (Constant(0),) * constant(args[0])})
    stop = args[min(len(args), 2) - 1] if args else Unknown()
    return Items("range", node, m.at, {"each": Unknown("number", kind="int"), "stop": stop})


def _iter(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    if isinstance(args[0], (Items, Unknown)):
        return args[0]
    return Tensor("iterator", (args[0],), {}, False, node, m.at)


def _next(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    return element(m, args[0], node)


def same(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """What only watches or counts what is gone through gives that: ``tqdm(loader)``."""
    return args[0] if args else kwargs.get("iterable", Unknown())


def _sum(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    over = args[0]
    if isinstance(over, Items):
        return mixed(m, "sum", over.all(), {}, node)
    return mixed(m, "sum", args, {}, node)


def _number(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    if isinstance(args[0], Constant):
        if args[0].value in ("inf", "-inf"):
            return Constant(float(args[0].value))
        return args[0] if isinstance(args[0].value, (int, float)) else Unknown()
    if isinstance(args[0], Tensor):
        return result(m, "item", args, {}, node)
    return Unknown(via="item", inputs=args)


def _mixed(name: str) -> Callable[[Machine, Args, Kwargs, cst.CSTNode], Value]:
    return lambda m, args, kwargs, node: mixed(m, name, args, {}, node)


def _getattr(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    name = constant(args[1]) if len(args) > 1 else None
    return attribute(m, args[0], name, node) if isinstance(name, str) else Unknown(of=args[0], via="getattr")


def _map(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    if len(args) < 2:
        return Unknown()
    made = [m.invoke(m, args[0], (one,), {}, node) for one in elements(m, args[1], node)]
    known = isinstance(args[1], Items) and args[1].attrs.get("each") is None and len(made) == len(args[1].all())
    return Items("list", node, m.at, {"items": tuple(made)} if known else {"each": made[0] if made else Unknown()})


def _isinstance(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """Known of modules alone: which of torch's layers one is, or which class of the user's."""
    kinds = args[1].all() if len(args) > 1 and isinstance(args[1], Items) else args[1:2]
    answers = [_is_a(args[0], kind) for kind in kinds]
    if True in answers:
        return Constant(True)
    return Unknown("isinstance", via="call", inputs=args) if None in answers or not answers else Constant(False)


def _is_a(value: Value, kind: Value) -> bool | None:
    if not isinstance(value, Object) or not is_module(value):
        return None
    line = [value.cls] if isinstance(value.cls, str) else list(value.cls.line())
    if isinstance(kind, Class):
        return True if kind in line else None if "" in line else False
    if not isinstance(kind, Named):
        return None
    if kind.name in line or kind.name == "torch.nn.Module":
        return True
    public = library.is_layer(kind.name) and not kind.name.rpartition(".")[2].startswith(("_", "Lazy"))
    return False if public and "" not in line else None


def _dict(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    if args and isinstance(args[0], Items) and args[0].pairs is not None:
        return Items("dict", node, m.at, {"pairs": args[0].pairs | kwargs})
    if args:
        rows = args[0].items if isinstance(args[0], Items) and args[0].attrs.get("each") is None else None
        cells = [one.items for one in rows or () if isinstance(one, Items) and len(one.items or ()) == 2]
        known = [(constant(cell[0]), cell[1]) for cell in cells if cell and isinstance(cell[0], Constant)]
        if rows is not None and len(known) == len(rows):
            return Items("dict", node, m.at, {"pairs": dict(known) | kwargs})
        return Items("dict", node, m.at, {"each": Unknown(of=args[0], via="[]", inputs=args)})
    return Items("dict", node, m.at, {"pairs": dict(kwargs)})


def _print(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    m.tell(Operated(node, m.at, "builtins.print", args, kwargs, Constant(None), m.frame.function))
    return Constant(None)


def _copy(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    return _cloned(m, args[0], node) if args else Unknown()


def _cloned(m: Machine, value: Value, node: cst.CSTNode) -> Value:
    """A copy that has an identity, and modes, of its own."""
    if isinstance(value, Object):
        attrs = {key: _cloned(m, one, node) if isinstance(one, Value) else one for key, one in value.attrs.items()}
        return Object(value.cls, value.args, value.kwargs, node, m.at, attrs | {"copied": (value,)})
    if isinstance(value, Items):
        inside: dict[str, object] = {
            "items": None if value.items is None else tuple(_cloned(m, one, node) for one in value.items),
            "pairs": None if value.pairs is None else {key: _cloned(m, one, node) for key, one in value.pairs.items()},
            "each": None if value.attrs.get("each") is None else _cloned(m, value.attrs["each"], node),
        }
        return Items(value.kind, node, m.at, inside)
    if isinstance(value, Unknown):
        return Unknown(value.name, value, "copy")
    return value


def _defaults(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """``defaultdict(list)``"""
    return Items("dict", node, m.at, {"pairs": {}, "factory": args[0] if args else Constant(None)})


def _ordered(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """``OrderedDict([(name, layer), …])``"""
    given = args[0] if args else None
    if isinstance(given, Items) and given.items is not None and given.attrs.get("each") is None:
        rows = [one.items for one in given.items if isinstance(one, Items) and one.items is not None]
        if len(rows) == len(given.items) and all(len(row) == 2 for row in rows):
            return Items("dict", node, m.at, {"pairs": {constant(row[0], n): row[1] for n, row in enumerate(rows)}})
    return _dict(m, args, kwargs, node)


_BUILTINS: dict[str, Callable[[Machine, Args, Kwargs, cst.CSTNode], Value]] = {
    "list": _items_of("list"),
    "tuple": _items_of("tuple"),
    "set": _items_of("set"),
    "reversed": _reversed,
    "sorted": _items_of("list"),
    "filter": lambda m, args, kwargs, node: _items_of("list")(m, args[1:], kwargs, node),
    "enumerate": _enumerate,
    "zip": _zip,
    "range": counted,
    "iter": _iter,
    "next": _next,
    "sum": _sum,
    "float": _number,
    "int": _number,
    "abs": _mixed("abs"),
    "max": _mixed("max"),
    "min": _mixed("min"),
    "round": _mixed("round"),
    "pow": _mixed("pow"),
    "getattr": _getattr,
    "isinstance": _isinstance,
    "map": _map,
    "dict": _dict,
    "print": _print,
}
STANDARD: dict[str, Callable[[Machine, Args, Kwargs, cst.CSTNode], Value]] = {
    "copy.deepcopy": _copy,
    "copy.copy": _copy,
    "collections.defaultdict": _defaults,
    "collections.OrderedDict": _ordered,
    "functools.partial": lambda m, args, kwargs, node: Object("functools.partial", args, kwargs, node, m.at),
}
"""Those of the standard library, by their full names."""
