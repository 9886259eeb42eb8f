"""What an import binds: names of libraries, and modules of the same program, which are read in turn."""

from __future__ import annotations

import os
from pathlib import Path

import libcst as cst
from libcst.helpers import get_full_name_for_node

from trueloop.doctor.source import library
from trueloop.doctor.source.machine import Frame, Machine, OutOfFuel
from trueloop.doctor.source.units import Unit, beside, parsed
from trueloop.doctor.source.values import Module, Named, Scope, Unknown, Value

NEIGHBOURS = 12  # files that are read for one


def import_names(m: Machine, node: cst.Import) -> None:
    """``import a.b as c``"""
    for one in node.names:
        name = get_full_name_for_node(one.name) or ""
        if one.asname is not None and isinstance(one.asname.name, cst.Name):
            m.write(m.frame.scope.names, one.asname.name.value, _module(m, name, 0))
        else:
            top = name.partition(".")[0]
            m.write(m.frame.scope.names, top, _module(m, top, 0))


def import_from(m: Machine, node: cst.ImportFrom) -> None:
    """``from a.b import c as d``"""
    name = get_full_name_for_node(node.module) or "" if node.module is not None else ""
    level = len(node.relative)
    source = _module(m, name, level)
    if isinstance(node.names, cst.ImportStar):
        if isinstance(source, Module):
            for key, value in source.scope.names.items():
                m.write(m.frame.scope.names, key, value)
        return
    for one in node.names:
        said = get_full_name_for_node(one.name) or ""
        as_name = one.asname.name.value if one.asname is not None and isinstance(one.asname.name, cst.Name) else said
        m.write(m.frame.scope.names, as_name, _member(m, source, name, said, level))


def _member(m: Machine, source: Value, name: str, said: str, level: int) -> Value:
    if isinstance(source, Module):
        if said in source.scope.names:
            return source.scope.names[said]
        return _module(m, f"{name}.{said}" if name else said, level)
    if isinstance(source, Named):
        return Named(library.canonical(f"{source.name}.{said}"))
    return Unknown(said)


def _module(m: Machine, name: str, level: int) -> Value:
    unit = m.frame.unit
    top = name.partition(".")[0]
    if not level and (top in library.KNOWN or top in library.ROOTS):
        return Named(name)
    path = beside(name, level, unit) if unit.folders else None
    if path is None:
        return Unknown(name) if level else Named(name)
    return neighbour(m, path)


def neighbour(m: Machine, path: Path) -> Value:
    """A file of the same program, its top level run silently, once."""
    key = str(path.resolve())
    if key in m.modules:
        return m.modules[key]
    tree = parsed(path, path.stat().st_mtime) if len(m.modules) < NEIGHBOURS else None
    if tree is None:  # not Python, not there, or nothing in it that matters here
        m.modules[key] = Unknown(path.stem)
        return m.modules[key]
    unit = Unit(_named(m, path), tree, m.unit.folders)
    module = Module(Scope({"__name__": Unknown("__name__")}), unit)
    m.modules[key] = module
    m.frames.append(Frame(module.scope, unit))
    saved = m.loops, m.calls, m.branches, m.ways, m.state["grad"], m.trail
    m.silent += 1
    m.ways, m.trail = [], []  # what is read here stays read, whatever becomes of the condition that we are in
    try:
        m.perform(m, tree.body)
    except OutOfFuel:
        raise
    except Exception:  # a neighbour that cannot be read is unknown; the file itself goes on
        m.left_out += 1
    finally:
        m.silent -= 1
        m.frames.pop()
        m.loops, m.calls, m.branches, m.ways, m.state["grad"], m.trail = saved
    return module


def _named(m: Machine, path: Path) -> str:
    """A neighbour as findings name it: from here, if the file that is read is named so."""
    return str(path) if os.path.isabs(m.unit.path) else os.path.relpath(path)
