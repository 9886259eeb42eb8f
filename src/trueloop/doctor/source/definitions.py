"""Definitions: a function's value with its defaults and decorators, and a class's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import libcst as cst
from libcst.helpers import get_full_name_for_node

from trueloop.doctor.source.contexts import gradients
from trueloop.doctor.source.machine import MISSING, End, Machine
from trueloop.doctor.source.values import Class, Function, Method, Object, Scope, Unknown, Value


def function_def(m: Machine, node: cst.FunctionDef) -> End:
    """``def …``: its name stands for it; an ignite engine is told of its handler."""
    made = define(m, node, None)
    m.functions.append(made)
    m.write(m.frame.scope.names, node.name.value, made)
    for decorator in node.decorators:
        said = decorator.decorator
        if isinstance(said, cst.Call) and isinstance(said.func, cst.Attribute) and said.func.attr.value == "on":
            of = m.evaluate(m, said.func.value)  # `@trainer.on(event)`: an ignite engine will call it
            if isinstance(of, Object):
                m.invoke(m, Method(of, "add_event_handler"), (Unknown("event"), made), {}, node)
    return None


def define(m: Machine, node: cst.FunctionDef, owner: Class | None) -> Function:
    """A function's value: its defaults are evaluated here, and its decorators are read."""
    decorators = []
    grad: bool | None = None
    for decorator in node.decorators:
        said = decorator.decorator
        named = get_full_name_for_node(said) or ""
        decorators.append(named)
        if named.rpartition(".")[2] in ("no_grad", "inference_mode", "enable_grad", "set_grad_enabled"):
            found = gradients(m.evaluate(m, said))
            grad = found if found is not MISSING else None
    defaults = {
        one.name.value: m.evaluate(m, one.default)
        for one in (*node.params.posonly_params, *node.params.params, *node.params.kwonly_params)
        if one.default is not None
    }
    scope, unit = m.frame.scope, m.frame.unit
    made = Function(node.name.value, node, scope, unit, owner, defaults, tuple(decorators), grad)
    around = made
    for decorator in reversed(node.decorators):
        around = _decorated(m, decorator.decorator, around)
    return made if around is made else replace(made, around=around)


def _decorated(m: Machine, said: cst.BaseExpression, of: Function) -> Function:
    """What a decorator of the user's makes of a function; the function itself for those of libraries."""
    maker = said.func if isinstance(said, cst.Call) else said
    if not isinstance(maker, (cst.Name, cst.Attribute)) or not isinstance(m.evaluate(m, maker), Function):
        return of
    decorator = m.evaluate(m, said)
    made = m.invoke(m, decorator, (of,), {}, said) if isinstance(decorator, Function) else None
    return made if isinstance(made, Function) else of


def class_def(m: Machine, node: cst.ClassDef) -> End:
    """``class …``: its methods and names, and what stands in its body besides."""
    bases = tuple(m.evaluate(m, base.value) for base in node.bases)
    names: dict[Any, Value] = {}
    made = Class(node.name.value, node, bases, names, m.frame.unit)
    outside = m.frame.scope
    m.frame.scope = Scope(names, outside)
    try:
        if isinstance(node.body, cst.IndentedBlock):
            for statement in node.body.body:
                if isinstance(statement, cst.FunctionDef):
                    m.frame.scope = outside  # a method does not see its class's names
                    names[statement.name.value] = define(m, statement, made)
                    m.frame.scope = Scope(names, outside)
                else:
                    m.perform(m, (statement,))
    finally:
        m.frame.scope = outside
    m.classes.append(made)
    m.write(m.frame.scope.names, node.name.value, made)
    return None
