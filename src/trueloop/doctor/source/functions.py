"""Functions and classes of libraries, called by name: torch's, Python's own, and their neighbours'."""

from __future__ import annotations

import math
from collections.abc import Callable

import libcst as cst

from trueloop.doctor.source import frameworks, library
from trueloop.doctor.source.assigning import LONGEST
from trueloop.doctor.source.attributes import attribute
from trueloop.doctor.source.elements import element, elements
from trueloop.doctor.source.events import Backward, Clipped, Escaped, GradientsUsed, Made, Operated
from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.modules import call_loss, is_module
from trueloop.doctor.source.results import mixed, result
from trueloop.doctor.source.values import (
    Class,
    Constant,
    Items,
    Named,
    Object,
    Tensor,
    Unknown,
    Value,
    constant,
    truth,
)

Args = tuple[Value, ...]
Kwargs = dict[str, Value]

_FACTORIES = frozenset(
    [
        "tensor",
        "as_tensor",
        "from_numpy",
        "zeros",
        "ones",
        "full",
        "empty",
        "rand",
        "randn",
        "randint",
        "randperm",
        "arange",
        "linspace",
        "logspace",
        "eye",
        "zeros_like",
        "ones_like",
        "rand_like",
        "randn_like",
        "full_like",
        "empty_like",
        "randint_like",
        "FloatTensor",
        "LongTensor",
        "IntTensor",
        "Tensor",
        "DoubleTensor",
        "BoolTensor",
        "normal",
        "bernoulli",
        "tril_indices",
    ]
)
_CONTEXTS = frozenset(("torch.no_grad", "torch.inference_mode", "torch.enable_grad", "torch.set_grad_enabled"))
_NOT_TENSORS = frozenset(
    [
        "manual_seed",
        "seed",
        "device",
        "is_tensor",
        "set_num_threads",
        "get_num_threads",
        "load",
        "save",
        "set_default_dtype",
        "use_deterministic_algorithms",
        "set_default_device",
        "get_default_dtype",
        "is_grad_enabled",
        "compile",
        "finfo",
        "iinfo",
        "dtype",
        "Size",
        "set_float32_matmul_precision",
        "autocast",
        "is_floating_point",
        "numel",
        "get_rng_state",
        "set_rng_state",
        "initial_seed",
        "hub",
    ]
)


def call_named(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """What a library's function or class gives."""
    top, _, rest = name.partition(".")
    if top == "builtins":
        return _builtin(m, rest, args, kwargs, node)
    if top not in library.KNOWN and top not in library.ROOTS:
        unknown = Unknown(name, via="call", inputs=(*args, *kwargs.values()))
        m.tell(Escaped(node, m.at, (*args, *kwargs.values()), name, unknown))
        return unknown
    made = _known(m, name, args, kwargs, node)
    if top in _TOLD or top in library.ROOTS:
        function = m.frame.function if m.frames else None
        m.tell(Operated(node, m.at, name, args, kwargs, made, function))
    return made


_TOLD = frozenset(["numpy", "random", "pickle", "joblib"])


def _known(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    last = name.rpartition(".")[2]
    if last == "__init__" and args and isinstance(args[0], Object):  # `nn.Module.__init__(self)`
        m.write(args[0].attrs, "init", True)
        return Constant(None)
    if name in library.WRAPPERS:
        return args[0] if args else next(iter(kwargs.values()), Unknown())
    if name in library.LOSS_FUNCTIONS:
        return call_loss(m, library.LOSS_FUNCTIONS[name], None, args, kwargs, node)
    if name in _CONTEXTS:
        return Object(name, args, kwargs, node, m.at)
    made_by_framework = frameworks.made(m, name, args, kwargs, node)
    if made_by_framework is not None:
        return made_by_framework
    special = _SPECIAL.get(name)
    if special is not None:
        return special(m, args, kwargs, node)
    if name.startswith("torch.nn.utils.clip_grad_"):
        of = args[0] if args else next(iter(kwargs.values()), Unknown())
        limit = args[1] if len(args) > 1 else kwargs.get("max_norm") or kwargs.get("clip_value") or Unknown()
        endless = constant(limit) == math.inf or (isinstance(limit, Named) and limit.name.endswith(".inf"))
        if not endless:  # else the norm is only measured
            m.tell(Clipped(node, m.at, of, last, limit))
        return Unknown(last)
    if name.startswith("torch.nn.init."):
        return args[0] if args else Unknown()
    if name.startswith("torch."):
        return _torch(m, name, args, kwargs, node)
    if last[:1].isupper() or (name.startswith("torchvision.models.") and last[:1].islower()):
        made = Object(name, args, kwargs, node, m.at)
        if library.is_module(name):
            made.attrs["training"] = True
        return made
    if name.partition(".")[0] in ("numpy", "np"):
        return Unknown(last, via="call", inputs=args)
    return Unknown(last, via="call", inputs=(*args, *kwargs.values()))


def _torch(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    last = name.rpartition(".")[2]
    if last in _FACTORIES and name.count(".") == 1:
        leaf = truth(kwargs["requires_grad"]) if "requires_grad" in kwargs else False
        return Tensor(last, args, dict(kwargs), leaf, node, m.at)
    if name in ("torch.nn.Parameter", "torch.autograd.Variable"):
        fresh = name.endswith("Parameter") or truth(kwargs.get("requires_grad", Constant(False)))
        return Tensor(last.lower(), args, dict(kwargs), fresh, node, m.at)
    if last[:1].isupper():
        return _instance(m, name, args, kwargs, node)
    function = name.startswith(("torch.nn.functional.", "torch.linalg.", "torch.special.", "torch.fft."))
    if function or (name.count(".") == 1 and last not in _NOT_TENSORS):
        if last in ("cat", "stack", "concat", "hstack", "vstack") and args and isinstance(args[0], Items):
            return result(m, last, args[0].all(), kwargs | _named(args[1:]), node)
        if last in ("max", "min") and (len(args) > 1 or "dim" in kwargs):
            one = result(m, last, args, dict(kwargs), node)
            other = result(m, "argmax", args, dict(kwargs), node)
            return Items("tuple", node, m.at, {"items": (one, other)})
        return result(m, last, args, dict(kwargs), node)
    return Unknown(last, via="call", inputs=(*args, *kwargs.values()))


def _named(args: Args) -> Kwargs:
    return {"dim": args[0]} if args else {}


def _instance(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    made = Object(name, args, kwargs, node, m.at)
    if library.is_module(name):
        made.attrs["training"] = True
    if name in library.CONTAINERS:
        made.attrs["children"] = _children(m, args, node)
    if name in ("torch.nn.TransformerEncoder", "torch.nn.TransformerDecoder") and args:
        made.attrs["layer"] = args[0]  # copies of it, but of its make
    m.tell(Made(node, m.at, made, m.frame.function))
    return made


def _children(m: Machine, args: Args, node: cst.CSTNode) -> Items:
    if len(args) == 1 and isinstance(args[0], Items):
        given = args[0]
        if given.pairs is not None:
            return Items("list", node, m.at, {"items": tuple(given.pairs.values())})
        if given.items is not None and given.attrs.get("each") is None:
            return Items("list", node, m.at, {"items": given.items})
        return Items("list", node, m.at, dict(given.attrs))
    if any(isinstance(one, Unknown) and one.via == "*" for one in args):
        each = [one.of for one in args if isinstance(one, Unknown) and one.via == "*"]
        inside = [v for one in each if isinstance(one, Items) for v in one.all()]
        others = [one for one in args if not (isinstance(one, Unknown) and one.via == "*")]
        return Items("list", node, m.at, {"items": (*inside, *others), "each": Unknown(), "last": _last(args)})
    return Items("list", node, m.at, {"items": args})


def _last(args: Args) -> Args:
    """The values that surely come last where the ones before them are not all known: ``*blocks, nn.Softmax(1)``."""
    found: list[Value] = []
    for one in reversed(args):
        if not (isinstance(one, Unknown) and one.via == "*"):
            found.insert(0, one)
            continue
        grown = one.of.items if isinstance(one.of, Items) and not _ends_open(one.of) else None
        return (*(grown[-1:] if grown else ()), *found)
    return tuple(found)


def _ends_open(given: Items) -> bool:
    """Whether what a list ends with is not known: ``[first, *others]``, or too long."""
    elements = given.node.elements if isinstance(given.node, (cst.List, cst.Tuple)) else ()
    if elements and isinstance(elements[-1], cst.StarredElement):
        return True
    return len(given.items or ()) >= LONGEST


def _backward(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    m.tell(Backward(node, m.at, args[0] if args else Unknown(), kwargs, False, m.state["grad"]))
    return Constant(None)


def _grad(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    m.tell(GradientsUsed(node, m.at, args[0] if args else Unknown()))
    of = args[1] if len(args) > 1 else kwargs.get("inputs")
    if isinstance(of, Items) and of.items is not None and of.attrs.get("each") is None:
        made = tuple(result(m, "grad", (one,), {}, node) for one in of.items)
        return Items("tuple", node, m.at, {"items": made})
    return Items("tuple", node, m.at, {"each": result(m, "grad", args, {}, node)})


def _random_split(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    given = args[1] if len(args) > 1 else kwargs.get("lengths")
    kind = "torch.utils.data.Subset"
    sizes = enumerate(given.items or () if args and isinstance(given, Items) else ())
    made = tuple(Object(kind, (args[0], Constant(n)), {"length": size}, node, m.at) for n, size in sizes)
    if not made:
        each = Object(kind, args, {}, node, m.at)
        return Items("list", node, m.at, {"each": each})
    return Items("list", node, m.at, {"items": made})


def _deepcopy(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    return clone(m, args[0], node) if args else Unknown()


def clone(m: Machine, value: Value, node: cst.CSTNode) -> Value:
    """A copy that has an identity, and modes, of its own."""
    if isinstance(value, Object):
        attrs = {key: clone(m, one, node) if isinstance(one, Value) else one for key, one in value.attrs.items()}
        return Object(value.cls, value.args, value.kwargs, node, m.at, attrs | {"copied": (value,)})
    if isinstance(value, Items):
        inside: dict[str, object] = {
            "items": None if value.items is None else tuple(clone(m, one, node) for one in value.items),
            "pairs": None if value.pairs is None else {key: clone(m, one, node) for key, one in value.pairs.items()},
            "each": None if value.attrs.get("each") is None else clone(m, value.attrs["each"], node),
        }
        return Items(value.kind, node, m.at, inside)
    if isinstance(value, Unknown):
        return Unknown(value.name, value, "copy")
    return value


def _product(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    return Unknown(via="call", inputs=args)


_SPECIAL: dict[str, Callable[[Machine, Args, Kwargs, cst.CSTNode], Value]] = {
    "torch.autograd.backward": _backward,
    "torch.autograd.grad": _grad,
    "torch.utils.data.random_split": _random_split,
    "copy.deepcopy": _deepcopy,
    "copy.copy": _deepcopy,
}


def _builtin(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
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


def _range(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
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


def _same(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
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


_BUILTINS: dict[str, Callable[[Machine, Args, Kwargs, cst.CSTNode], Value]] = {
    "list": _items_of("list"),
    "tuple": _items_of("tuple"),
    "set": _items_of("set"),
    "reversed": _items_of("list"),
    "sorted": _items_of("list"),
    "filter": lambda m, args, kwargs, node: _items_of("list")(m, args[1:], kwargs, node),
    "enumerate": _enumerate,
    "zip": _zip,
    "range": _range,
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
_SPECIAL |= {
    "tqdm.tqdm": _same,
    "tqdm.auto.tqdm": _same,
    "tqdm.notebook.tqdm": _same,
    "tqdm.trange": _range,
    "rich.progress.track": _same,
    "collections.defaultdict": lambda m, args, kwargs, node: _defaults(m, args, node),
    "collections.OrderedDict": lambda m, args, kwargs, node: _ordered(m, args, kwargs, node),
    "functools.partial": lambda m, args, kwargs, node: Object("functools.partial", args, kwargs, node, m.at),
    "sklearn.pipeline.make_pipeline": lambda m, args, kwargs, node: Object(
        "sklearn.pipeline.Pipeline", args, kwargs, node, m.at
    ),
}


def _defaults(m: Machine, args: Args, node: cst.CSTNode) -> Value:
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
