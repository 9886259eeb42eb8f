"""Functions and classes of libraries, called by name: torch's, and those of its neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable

import libcst as cst

from trueloop.doctor.source import frameworks, library
from trueloop.doctor.source.assigning import LONGEST
from trueloop.doctor.source.events import Backward, Clipped, Escaped, GradientsUsed, Made, Operated
from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.modules import call_loss
from trueloop.doctor.source.results import result
from trueloop.doctor.source.standard import STANDARD, call_builtin, counted, same
from trueloop.doctor.source.values import (
    Args,
    Constant,
    Items,
    Kwargs,
    Named,
    Object,
    Tensor,
    Unknown,
    Value,
    constant,
    truth,
)

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
        return call_builtin(m, rest, args, kwargs, node)
    if top not in library.KNOWN and top not in library.ROOTS:
        unknown = Unknown(name, via="call", inputs=(*args, *kwargs.values()))
        m.tell(Escaped(node, m.at, (*args, *kwargs.values()), name, unknown))
        return unknown
    made = _known(m, name, args, kwargs, node)
    if top in _TOLD or top in library.ROOTS:
        function = m.frame.function if m.frames else None
        m.tell(Operated(node, m.at, name, args, kwargs, made, function))
    return made


_TOLD = frozenset(["numpy", "random", "pickle", "joblib", "statistics"])


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


_SPECIAL: dict[str, Callable[[Machine, Args, Kwargs, cst.CSTNode], Value]] = {
    "torch.autograd.backward": _backward,
    "torch.autograd.grad": _grad,
    "torch.utils.data.random_split": _random_split,
    "sklearn.pipeline.make_pipeline": lambda m, args, kwargs, node: Object(
        "sklearn.pipeline.Pipeline", args, kwargs, node, m.at
    ),
    "tqdm.tqdm": same,
    "tqdm.auto.tqdm": same,
    "tqdm.notebook.tqdm": same,
    "tqdm.trange": counted,
    "rich.progress.track": same,
} | STANDARD
