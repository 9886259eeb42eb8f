"""Methods of things that are not the user's: optimizers, schedules, scalers, modules, tensors, lists, the unknown."""

from __future__ import annotations

import re

import libcst as cst

from trueloop.doctor.source import frameworks, library, lightning
from trueloop.doctor.source.assigning import keep
from trueloop.doctor.source.elements import element, part
from trueloop.doctor.source.events import (
    Backward,
    Called,
    Escaped,
    GradientsUsed,
    Kept,
    Operated,
    Scheduled,
    Stepped,
    Unscaled,
    Updated,
    Zeroed,
)
from trueloop.doctor.source.freezing import freeze
from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.modules import call_module, is_module, parts, set_frozen, set_mode
from trueloop.doctor.source.results import result
from trueloop.doctor.source.values import (
    Args,
    Bound,
    Class,
    Constant,
    Function,
    Items,
    Kwargs,
    Named,
    Object,
    Super,
    Tensor,
    Unknown,
    Value,
    truth,
)

_SELF = frozenset(
    [
        "to",
        "cuda",
        "cpu",
        "double",
        "float",
        "half",
        "bfloat16",
        "type",
        "apply",
        "share_memory",
        "compile",
        "tie_weights",
    ]
)
_OPTIMIZER = re.compile(r"(^|_)(optim(i[sz]er)?s?|opt|adamw?|sgd)(_|$|[0-9])", re.IGNORECASE)
_TOLD = frozenset(["argmax", "topk", "softmax", "log_softmax", "sigmoid", "eq", "mean"])
_SCHEDULER = re.compile(r"sched", re.IGNORECASE)


def call_method(
    m: Machine, of: Value, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode, callee: Unknown | None = None
) -> Value:
    """What ``of.name(…)`` gives and does.

    Args:
        m: the machine.
        of: whose method it is.
        name: the method's.
        args: its arguments.
        kwargs: those by name.
        node: the call.
        callee: the method itself, where it was an attribute of something unknown.
    """
    if isinstance(of, Super):
        return _of_base(m, of, name, args, kwargs, node)
    if isinstance(of, Object):
        if is_module(of):
            return _of_module(m, of, name, args, kwargs, node)
        return _of_object(m, of, name, args, kwargs, node)
    if isinstance(of, Tensor):
        return _of_tensor(m, of, name, args, kwargs, node)
    if isinstance(of, Items):
        return _of_items(m, of, name, args, kwargs, node)
    if isinstance(of, Constant):
        return Unknown(via="call", inputs=args)
    if isinstance(of, Unknown):
        return _of_unknown(m, of, name, args, kwargs, node, callee)
    made = Unknown(of=of, via="call", inputs=(of, *args))
    m.tell(Escaped(node, m.at, (*args, *kwargs.values()), name, made))
    return made


def _of_base(m: Machine, of: Super, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """``super().name(…)`` where the next class is a library's, or unknown."""
    if name == "__init__" and isinstance(of.of, Object):
        m.write(of.of.attrs, "init", True)
        return Constant(None)
    return call_method(m, of.of, name, args, kwargs, node) if isinstance(of.of, Object) else Unknown()


def _of_module(m: Machine, of: Object, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    own = of.cls.find("train") if isinstance(of.cls, Class) else None
    if name == "eval" and isinstance(own, Function):  # `eval()` is `self.train(False)`
        m.invoke(m, Bound(own, of), (Constant(False),), {}, node)
        return of
    if name in ("train", "eval"):
        mode = (args[0] if args else kwargs.get("mode", Constant(True))) if name == "train" else Constant(False)
        set_mode(m, of, truth(mode), node)
        return of
    if name == "apply" and args and isinstance(args[0], (Function, Bound)):
        for one in list(parts(of)):
            m.invoke(m, args[0], (one,), {}, node)
    if name in _SELF:
        return of
    if name == "zero_grad":
        m.tell(Zeroed(node, m.at, of))
        return Constant(None)
    if name == "requires_grad_":
        asked = truth(args[0] if args else Constant(True))
        set_frozen(m, of, None if asked is None else not asked)
        return of
    if name in ("parameters", "named_parameters"):
        each: Value = Unknown("parameter", of, "parameters", tuple(parts(of)))  # as it is made up now
        if name == "named_parameters":
            each = Items("tuple", node, m.at, {"items": (Unknown("name"), each)})
            return Items("generator", node, m.at, {"each": each})
        return each
    if name in ("modules", "children", "named_modules", "named_children"):
        found: Value = Unknown("module", of, "parts")
        if name.startswith("named"):
            found = Items("tuple", node, m.at, {"items": (Unknown("name"), found)})
        return Items("generator", node, m.at, {"each": found})
    if name == "__init__":
        m.write(of.attrs, "init", True)
        return Constant(None)
    if name in ("forward", "__call__"):
        return call_module(m, of, args, kwargs, node)
    if name in ("append", "add_module", "register_module", "extend", "insert") and args:
        children = of.attrs.get("children")
        if isinstance(children, Items) and name == "append":
            keep(m, children, args[0])
            return of
        if name in ("add_module", "register_module") and isinstance(args[0], Constant) and len(args) > 1:
            m.write(of.attrs, str(args[0].value), args[1])
            if isinstance(children, Items):
                keep(m, children, args[1])
        return Constant(None)
    if name == "register_buffer" and len(args) > 1 and isinstance(args[0], Constant):
        m.write(of.attrs, str(args[0].value), args[1])
        return Constant(None)
    if name == "register_parameter" and len(args) > 1 and isinstance(args[0], Constant):
        m.write(of.attrs, str(args[0].value), args[1])
        return Constant(None)
    if lightning.is_lightning(of):
        known = lightning.of_module(m, of, name, args, kwargs, node)
        if known is not None:
            return known
    made = Unknown(name, of, "call", args)
    m.tell(Operated(node, m.at, f"Module.{name}", (of, *args), kwargs, made, m.frame.function))
    return made


def _of_object(m: Machine, of: Object, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    kind = of.kind
    if library.is_optimizer(kind):
        if name == "step":
            return _step(m, of, args, kwargs, node)
        if name == "zero_grad":
            m.tell(Zeroed(node, m.at, of))
            return Constant(None)
    elif library.is_scheduler(kind) and name == "step":
        m.tell(Scheduled(node, m.at, of, (*args, *kwargs.values())))
        return Constant(None)
    elif library.is_scaler(kind):
        found = _of_scaler(m, of, name, args, kwargs, node)
        if found is not None:
            return found
    elif not kind:
        unknown = Unknown(of=of, via="call", inputs=(of, *args))
        m.tell(Escaped(node, m.at, (of, *args, *kwargs.values()), name, unknown))
        return unknown
    known = frameworks.of_object(m, of, name, args, kwargs, node)
    if known is not None:
        return known
    fitted = name == "fit" and kind.startswith("sklearn.")  # scikit-learn's `fit` gives the thing itself
    made: Value = of if fitted else Unknown(name, of, "call", args)
    m.tell(Operated(node, m.at, f"{kind.rpartition('.')[2]}.{name}", (of, *args), kwargs, made, m.frame.function))
    return made


def _step(m: Machine, of: Value, args: Args, kwargs: Kwargs, node: cst.CSTNode, scaler: Value | None = None) -> Value:
    closure = args[0] if args else kwargs.get("closure")
    value: Value = Constant(None)
    runs = isinstance(closure, (Function, Bound))
    if closure is not None and runs:
        value = m.invoke(m, closure, (), {}, node)
    m.tell(Stepped(node, m.at, of, scaler, runs))
    return value


def _of_scaler(m: Machine, of: Object, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value | None:
    if name == "scale" and args:
        return result(m, "scale", args, {"scaler": of}, node)
    if name == "step" and args:
        return _step(m, args[0], args[1:], kwargs, node, of)
    if name == "unscale_" and args:
        m.tell(Unscaled(node, m.at, of, args[0]))
        return Constant(None)
    if name == "update":
        m.tell(Updated(node, m.at, of))
        return Constant(None)
    return None


def _of_tensor(m: Machine, of: Tensor, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    if name == "backward":
        loss = of.inputs[0] if of.op == "scale" else of
        m.tell(Backward(node, m.at, loss, kwargs, _is_scaled(of), m.state["grad"]))
        return Constant(None)
    if name == "requires_grad_":
        m.tell(Operated(node, m.at, "Tensor.requires_grad_", (of, *args), kwargs, of, m.frame.function))
        if truth(args[0] if args else Constant(True)):
            m.write(of.attrs, "asked", Constant(True))  # it is the same tensor, whether the result is used or not
            return Tensor("requires_grad_", (of,), {}, True, node, m.at, of.layer)
        return of
    if name in ("max", "min") and (args or "dim" in kwargs):
        one = result(m, name, (of, *args), dict(kwargs), node)
        other = result(m, "argmax", (of, *args), dict(kwargs), node)
        m.tell(Operated(node, m.at, "Tensor.argmax", (of, *args), kwargs, other, m.frame.function))
        return Items("tuple", node, m.at, {"items": (one, other)})
    if name in ("size", "dim", "numel", "tolist", "data_ptr", "element_size", "nelement"):
        return Unknown(name, of, name)
    if name == "zero_" and of.op == "grad":
        m.tell(Zeroed(node, m.at, of.inputs[0]))
        return of
    made = result(m, name, (of, *args), dict(kwargs), node)
    if name in _TOLD:
        m.tell(Operated(node, m.at, f"Tensor.{name}", (of, *args), kwargs, made, m.frame.function))
    if name in ("item", "detach_"):
        made.graph = False
    if name.endswith("_") and of.op in ("grad", "data", "parameter"):
        m.tell(GradientsUsed(node, m.at, of))
    return made


def _is_scaled(value: Value, depth: int = 5) -> bool:
    """Whether a scaler that is at work has scaled a loss, or a part of it."""
    if not isinstance(value, Tensor) or depth == 0:
        return False
    if value.op == "scale":
        scaler = value.options.get("scaler")
        enabled = scaler.option("enabled") if isinstance(scaler, Object) else None
        return enabled is None or truth(enabled) is True
    return any(_is_scaled(one, depth - 1) for one in value.inputs)


def _of_items(m: Machine, of: Items, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    if name in ("append", "add", "appendleft") and args:
        m.tell(Kept(node, m.at, name, of, args[0], None))
        keep(m, of, args[0])
        return Constant(None)
    if name == "insert" and len(args) > 1:
        m.tell(Kept(node, m.at, name, of, args[1], None))
        keep(m, of, args[1])
        return Constant(None)
    if name in ("extend", "update") and args:
        for one in args[0].all() if isinstance(args[0], Items) else args[:1]:
            m.tell(Kept(node, m.at, name, of, one, None))
            keep(m, of, one)
        return Constant(None)
    if name == "clear":
        empty: dict[str, object] = {"pairs": {}} if of.pairs is not None else {"items": (), "each": None}
        for key, value in empty.items():
            m.write(of.attrs, key, value)
        return Constant(None)
    if name in ("get", "pop", "setdefault") and args:
        return part(m, of, args[0], node)
    if name == "items":
        if of.pairs is not None:
            rows = tuple(Items("tuple", node, m.at, {"items": (Constant(k), v)}) for k, v in of.pairs.items())
            return Items("list", node, m.at, {"items": rows})
        row = Items("tuple", node, m.at, {"items": (Unknown("key"), element(m, of, node))})
        return Items("list", node, m.at, {"each": row})
    if name == "values":
        return Items(
            "list", node, m.at, {"items": of.all()} if of.pairs is not None else {"each": element(m, of, node)}
        )
    if name == "keys" and of.pairs is not None:
        return Items("list", node, m.at, {"items": tuple(Constant(key) for key in of.pairs)})
    if name == "copy":
        return Items(of.kind, node, m.at, dict(of.attrs))
    if name == "pop":
        return element(m, of, node)
    return Unknown(name, of, "call", args)


def _of_unknown(
    m: Machine, of: Unknown, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode, callee: Unknown | None
) -> Value:
    """By the method's name, where no other thing has one of that name."""
    if name == "backward":
        loss: Value = args[0] if args and not isinstance(args[0], Constant) else of  # `accelerator.backward(loss)`
        scaled_loss = of.via == "scale"
        m.tell(Backward(node, m.at, of.inputs[0] if scaled_loss else loss, kwargs, scaled_loss, m.state["grad"]))
        return Constant(None)
    if name == "zero_grad":
        m.tell(Zeroed(node, m.at, of))
        return Constant(None)
    if name in ("train", "eval") and len(args) + len(kwargs) <= (name == "train"):
        mode = (args[0] if args else kwargs.get("mode", Constant(True))) if name == "train" else Constant(False)
        set_mode(m, of, truth(mode), node)
        return of
    if name == "step":
        names = (_said(of), _receiver(node))
        optimizer = library.is_optimizer(of.kind) or of.kind.endswith(".Optimizer")
        if optimizer or any(_OPTIMIZER.search(name) for name in names):
            return _step(m, of, args, kwargs, node)
        if library.is_scheduler(of.kind) or any(_SCHEDULER.search(name) for name in names):
            m.tell(Scheduled(node, m.at, of, (*args, *kwargs.values())))
            return Constant(None)
        for one in args[:1]:  # a scaler's, that was handed in
            known = isinstance(one, Object) and library.is_optimizer(one.kind)
            if known or (isinstance(one, Unknown) and _OPTIMIZER.search(_said(one))):
                return _step(m, one, (), kwargs, node, of)
    if name in ("parameters", "named_parameters") and not isinstance(of.of, Named):
        return Unknown("parameter", of, "parameters")
    if name in ("modules", "children", "named_modules", "named_children"):
        return Unknown("module", of, "parts")
    if name == "requires_grad_" and of.via in ("parameters", "each"):
        freeze(m, of, truth(args[0] if args else kwargs.get("requires_grad", Constant(True))) is False)
        return of
    if name in ("zero_", "fill_") and of.via == "grad" and of.of is not None:
        m.tell(Zeroed(node, m.at, of.of))
        return of
    if name in ("to", "cuda", "cpu", "float", "double", "half", "long", "bfloat16", "contiguous") and not _reads(of):
        return of
    if name in ("item", "detach", "numpy", "tolist"):
        return Unknown(name, of, name, (of,))
    if name == "scale" and len(args) == 1:
        return Unknown("scale", of, "scale", args)
    if of.via == "call" and name in ("softmax", "log_softmax") and _names_dimension(args, kwargs):
        return result(m, name, (of, *args), kwargs, node)  # of what a model gives, and not of a module of functions
    if name in ("unscale_",) and args:
        m.tell(Unscaled(node, m.at, of, args[0]))
        return Constant(None)
    made = Unknown(name if callee is None else callee.name, of, "call", (of, *args, *kwargs.values()))
    if kwargs:
        made.attrs["named",] = tuple(kwargs)
    m.tell(Escaped(node, m.at, (of, *args, *kwargs.values()), name, made))
    if not m.inside:
        target: Value = callee if callee is not None else of
        mode_now = callee.attrs.get("training") if callee is not None else None
        training = mode_now if isinstance(mode_now, bool) else None
        asked = callee is not None and "asked" in callee.attrs
        m.tell(Called(node, m.at, target, args, made, training, None, asked, m.state["grad"]))
    return made


def _names_dimension(args: Args, kwargs: Kwargs) -> bool:
    given = args[0] if len(args) == 1 and not kwargs else kwargs.get("dim") if len(kwargs) == 1 and not args else None
    return isinstance(given, Constant) and type(given.value) is int


def _reads(of: Unknown) -> bool:
    return of.via in ("grad", "item")


def _receiver(node: cst.CSTNode) -> str:
    """The last name before the method's: ``opt`` in ``self.opt.step()``."""
    thing = node.func.value if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) else None
    if isinstance(thing, cst.Attribute):
        return thing.attr.value
    return thing.value if isinstance(thing, cst.Name) else ""


def _said(of: Unknown) -> str:
    """The name that an unknown thing goes by in the script."""
    return of.name.rpartition(".")[2]
