"""Calls: the user's functions and methods are gone through where they are called; others are known by name or not."""

from __future__ import annotations

from typing import Any

import libcst as cst

from trueloop.doctor.source import accelerators
from trueloop.doctor.source.attributes import each_way
from trueloop.doctor.source.events import Called, Constructed, Entered, Escaped, Made
from trueloop.doctor.source.functions import call_named
from trueloop.doctor.source.library import is_module as is_module_kind
from trueloop.doctor.source.machine import Frame, Machine, OutOfFuel
from trueloop.doctor.source.methods import call_method
from trueloop.doctor.source.modules import call_module, is_module
from trueloop.doctor.source.units import statements_of
from trueloop.doctor.source.values import (
    Bound,
    Class,
    Constant,
    Either,
    Function,
    Items,
    Method,
    Named,
    Object,
    Scope,
    Super,
    Unknown,
    Value,
    join,
)

DEEPEST = 16  # calls in calls


def call(m: Machine, node: cst.Call) -> Value:
    """A call as it is written: the callee, its arguments, what it gives."""
    callee = m.evaluate(m, node.func)
    args: list[Value] = []
    kwargs: dict[str, Value] = {}
    for arg in node.args:
        value = m.evaluate(m, arg.value)
        if arg.star == "*":
            known = value.items if isinstance(value, Items) and value.attrs.get("each") is None else None
            args += known if known is not None else [Unknown(of=value, via="*")]
        elif arg.star == "**":
            if isinstance(value, Items) and value.pairs is not None:
                kwargs |= {str(key): one for key, one in value.pairs.items()}
            else:
                kwargs["**"] = value
        elif arg.keyword is not None:
            kwargs[arg.keyword.value] = value
        else:
            args.append(value)
    if isinstance(callee, Named) and callee.name == "builtins.super":
        return _super(m)
    return invoke(m, callee, tuple(args), kwargs, node)


def _super(m: Machine) -> Value:
    frame = next(
        (one for one in reversed(m.frames) if one.function is not None and one.function.owner is not None), None
    )
    if frame is None or frame.function is None or frame.function.owner is None:
        return Unknown("super")
    return Super(frame.function.owner, frame.of or Unknown("self"))


def invoke(m: Machine, callee: Value, args: tuple[Value, ...], kwargs: dict[str, Value], node: cst.CSTNode) -> Value:
    """Calls a value."""
    m.burn()
    if isinstance(callee, Function):
        return inline(m, callee, None, args, kwargs, node)
    if isinstance(callee, Bound):
        if callee.function.name == "__init__" and isinstance(callee.of, Object):
            inline(m, callee.function, callee.of, args, kwargs, node)
            return Constant(None)
        return inline(m, callee.function, callee.of, args, kwargs, node)
    if isinstance(callee, Class):
        return instantiate(m, callee, args, kwargs, node)
    if isinstance(callee, Object):
        return _call_object(m, callee, args, kwargs, node)
    if isinstance(callee, Named):
        return call_named(m, callee.name, args, kwargs, node)
    if isinstance(callee, Method):
        return call_method(m, callee.of, callee.name, args, kwargs, node)
    if isinstance(callee, Either):
        return each_way(m, callee, lambda one: invoke(m, one, args, kwargs, node))
    if isinstance(callee, Unknown) and callee.via == "." and callee.of is not None:
        return call_method(m, callee.of, callee.name, args, kwargs, node, callee)
    return call_unknown(m, callee, args, kwargs, node)


def call_unknown(
    m: Machine, callee: Value, args: tuple[Value, ...], kwargs: dict[str, Value], node: cst.CSTNode
) -> Value:
    """A function of which nothing is known: it may do anything with what it is given."""
    made = Unknown(of=callee, via="call", inputs=(*args, *kwargs.values()))
    name = callee.name if isinstance(callee, (Unknown, Named)) else ""
    m.tell(Escaped(node, m.at, (*args, *kwargs.values()), name, made))
    if isinstance(callee, Unknown) and not m.inside:
        mode = callee.attrs.get("training")
        training: Any = mode if isinstance(mode, bool) else None
        m.tell(Called(node, m.at, callee, args, made, training, None, "asked" in callee.attrs, m.state["grad"]))
    return made


def _call_object(
    m: Machine, callee: Object, args: tuple[Value, ...], kwargs: dict[str, Value], node: cst.CSTNode
) -> Value:
    if is_module(callee):
        return call_module(m, callee, args, kwargs, node)
    if isinstance(callee.cls, Class):
        found = callee.cls.find("__call__")
        if isinstance(found, Function):
            return inline(m, found, callee, args, kwargs, node)
        if "" in callee.cls.line():
            return call_unknown(m, callee, args, kwargs, node)
    if callee.cls == accelerators.ENGINE:
        return invoke(m, callee.attrs["module"], args, kwargs, node)
    if callee.cls == "functools.partial" and callee.args:
        return invoke(m, callee.args[0], (*callee.args[1:], *args), callee.kwargs | kwargs, node)
    return Unknown(of=callee, via="call", inputs=(*args, *kwargs.values()))


def instantiate(m: Machine, cls: Class, args: tuple[Value, ...], kwargs: dict[str, Value], node: cst.CSTNode) -> Value:
    """``Class(…)``: an object, its ``__init__`` gone through."""
    made = Object(cls, args, kwargs, node, m.at)
    m.objects.setdefault(id(cls.node), made)
    module = is_module_kind(made.kind)
    if module:
        made.attrs["training"] = True
    elif made.kind.startswith("torch."):
        m.tell(Made(node, m.at, made, m.frame.function))
    init = cls.find("__init__")
    if isinstance(init, Function):
        before = m.left_out
        inline(m, init, made, args, kwargs, node)
        if module:
            unsure = "" in cls.line() or m.left_out != before or "init?" in made.attrs
            reached = True if "init" in made.attrs else None if unsure else False
            m.tell(Constructed(node, m.at, made, cls, reached))
    else:
        for name, value in kwargs.items():
            made.attrs[name] = value
        fields = _fields(cls)
        for name, value in zip(fields, args, strict=False):
            made.attrs[name] = value
    return made


def _fields(cls: Class) -> list[str]:
    """The annotated names in a class's body, as a dataclass takes them."""
    found: list[str] = []
    for statement in cls.node.body.body:
        small = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
        found += [
            one.target.value for one in small if isinstance(one, cst.AnnAssign) and isinstance(one.target, cst.Name)
        ]
    return found


def inline(
    m: Machine,
    function: Function,
    of: Value | None,
    args: tuple[Value, ...],
    kwargs: dict[str, Value],
    node: cst.CSTNode,
) -> Value:
    """Goes through a function of the user's with these arguments."""
    m.entered.add(id(function.node))
    if function.around is not None:
        return inline(m, function.around, of, args, kwargs, node)
    running = sum(_is_of(frame, function) for frame in m.frames)
    if running >= 2 or len(m.frames) > DEEPEST:
        return call_unknown(m, Unknown(function.name), ((of,) if of is not None else ()) + args, kwargs, node)
    saved = m.calls, m.branches, m.ways, m.state["grad"], m.loops, m.inside, m.silent, len(m.frames)
    scope = Scope({}, function.scope)
    frame = Frame(scope, function.unit, function, of, len(m.trail))
    if any(one.endswith("contextmanager") for one in function.decorators):
        frame.body = m.bodies.pop(id(node), None)
    m.frames.append(frame)
    m.calls = (*m.calls, node)
    m.ways = []
    if function.grad is not None:
        m.write(m.state, "grad", function.grad)
    try:
        bind(m, function, of, args, kwargs)
        if of is not None:
            m.tell(Entered(node, m.at, function))
        if isinstance(function.node, cst.Lambda):
            frame.returned.append(m.evaluate(m, function.node.body))
            end = None
        else:
            end = m.perform(m, statements_of(function.node.body))
        m.meet(frame.mark, frame.exits, here=end is None)
    except OutOfFuel:
        raise
    except Exception:
        if m.strict:
            raise
        m.left_out += 1
        frame.returned = [Unknown()]
    finally:
        m.calls, m.branches, m.ways, grad, m.loops, m.inside, m.silent, depth = saved
        del m.frames[depth:]
        if function.grad is not None and m.state["grad"] is not grad:
            m.write(m.state, "grad", grad)
    if frame.yielded is not None:
        of_one_line = len({id(one.node) if isinstance(one, Items) else id(one) for one in frame.yielded}) == 1
        each = frame.yielded[0] if of_one_line else Unknown(inputs=tuple(frame.yielded))
        return Items("generator", node, m.at, {"each": each})
    if not frame.returned:
        return Constant(None)
    value: Value = frame.returned[0]
    for other in frame.returned[1:]:
        value = join(value, other)
    return value


def _is_of(frame: Frame, function: Function) -> bool:
    """Whether a function runs in a frame; of two that a decorator made, each is its own."""
    running = frame.function
    return running is not None and running.node is function.node and running.scope is function.scope


def bind(m: Machine, function: Function, of: Value | None, args: tuple[Value, ...], kwargs: dict[str, Value]) -> None:
    """A call's arguments to a function's names; unknown where none is given."""
    names = m.frame.scope.names
    params = function.node.params
    given = list(args)
    if of is not None:
        given.insert(0, of)
    left = dict(kwargs)
    everything = left.pop("**", None)
    spread = next((one for one in given if isinstance(one, Unknown) and one.via == "*"), None)
    placed = len(given) if spread is None else given.index(spread)
    for number, param in enumerate((*params.posonly_params, *params.params)):
        name = param.name.value
        if number < placed:
            names[name] = given[number]
        elif name in left:
            names[name] = left.pop(name)
        elif spread is not None:  # how many it holds is not known
            names[name] = spread if number == placed else Unknown(name, spread.of, "each")
        elif name in function.defaults and everything is None:
            names[name] = function.defaults[name]
        else:
            names[name] = Unknown(name, kind=_annotated(m, param))
    count = len(params.posonly_params) + len(params.params)
    rest = given[count if spread is None else min(count, placed) :]
    if isinstance(params.star_arg, cst.Param):
        names[params.star_arg.name.value] = Items("tuple", function.node, m.at, {"items": tuple(rest)})
    for param in params.kwonly_params:
        name = param.name.value
        default = function.defaults.get(name) if everything is None else None
        value = left.pop(name) if name in left else default
        names[name] = value if value is not None else Unknown(name, kind=_annotated(m, param))
    if params.star_kwarg is not None:
        pairs: dict[Any, Any] = {"pairs": left} if everything is None else {"each": Unknown()}
        names[params.star_kwarg.name.value] = Items("dict", function.node, m.at, pairs)


def _annotated(m: Machine, param: cst.Param) -> str:
    if param.annotation is None or not isinstance(param.annotation.annotation, (cst.Name, cst.Attribute)):
        return ""
    value = m.evaluate(m, param.annotation.annotation)
    return value.name if isinstance(value, Named) else ""
