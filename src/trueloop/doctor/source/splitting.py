"""A transformer of scikit-learn's that was fitted before a split is fitted after it, on the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trueloop.doctor.source import blocks
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import after, put, together, without
from trueloop.doctor.source.events import Operated
from trueloop.doctor.source.fixes import Fix
from trueloop.doctor.source.naming import name_of

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.source.units import Unit


class _Part(NamedTuple):
    """What one array of a split is, and what its two parts are called."""

    array: Any
    train: str
    held: str


def fitted_after(program: Program, fit: Operated, split: Operated) -> Fix | None:
    """The fix, if the fit, what applies it, and the split are lines of one block, and nothing else needs the result."""
    unit, node = program.unit, fit.node
    lines = _from_to(unit, fit, split)
    parts = _parts(unit, split.node)
    if not lines or not parts or kind(getattr(node, "func", None)) != "Attribute":
        return None
    call: Any = node
    given = [one.value for one in call.args if one.keyword is None and not one.star]
    name, is_kept = _transformer(program, call)
    applied = call if call.func.attr.value == "fit_transform" else _applied(unit, lines, name, given)
    if len(given) != len(call.args) or not given or applied is None:
        return None
    rows, scaled = parts[0], name_of(unit, applied)
    targets = [part.train for part in parts if len(given) > 1 and unit.text(part.array) == unit.text(given[1])]
    inside = rows.array is applied
    if len(given) > 2 or len(targets) != len(given) - 1 or not (inside or unit.text(rows.array) == scaled):
        return None
    source = unit.text(given[0])
    if not inside and _uses(unit, lines, applied, scaled, same=source == scaled and _keeps_shape(unit, call)) != 1:
        return None
    made = [] if is_kept else [f"{name} = {unit.text(call.func.value)}"]
    fitted = f"{rows.train} = {name}.fit_transform({', '.join([rows.train, *targets])})"
    text = "\n".join([*made, fitted, f"{rows.held} = {name}.transform({rows.held})"])
    assigned = call is not applied and name_of(unit, call) == name  # scaler = StandardScaler().fit(X)
    return together(
        "fit on the training rows, after the split",
        put(program, call, unit.text(call.func.value)) if assigned else without(program, call),
        [] if inside or applied is call else without(program, applied),
        [] if source == unit.text(rows.array) else put(program, rows.array, source),
        after(program, split.node, text),
    )


def _from_to(unit: Unit, fit: Operated, split: Operated) -> Sequence[cst.CSTNode]:
    """The block's statements from the fit on, if the split is among them."""
    one, two = blocks.statement(unit, fit.node), blocks.statement(unit, split.node)
    if one is None or two is None or fit.at.calls != split.at.calls:
        return ()
    block = list(blocks.block(unit, one))
    return block[block.index(one) :] if two in block[block.index(one) :] else ()


def _parts(unit: Unit, split: Any) -> list[_Part]:
    """``a, b, c, d = train_test_split(X, y)``: X with a and b, y with c and d."""
    arrays = [one.value for one in split.args if one.keyword is None]
    holder: Any = next(blocks.around(unit, split), None)
    target = holder.targets[0].target if kind(holder) == "Assign" and len(holder.targets) == 1 else None
    names = [unit.text(one.value) for one in getattr(target, "elements", ())]
    if not all(name.isidentifier() for name in names) or len(names) != 2 * len(arrays):
        return []
    return [_Part(array, names[2 * n], names[2 * n + 1]) for n, array in enumerate(arrays)]


def _transformer(program: Program, call: Any) -> tuple[str, bool]:
    """What the transformer is called, and whether it has a name already."""
    unit, of = program.unit, call.func.value
    if kind(of) != "Call":
        return unit.text(of), True
    if call.func.attr.value == "fit":
        return name_of(unit, call), True
    taken = blocks.names(unit.tree)
    front = "scaler" if unit.text(of.func).endswith("Scaler") else "fitted"
    return next(name for name in (front, *(f"{front}_{n}" for n in range(2, 99))) if name not in taken), False


def _applied(unit: Unit, lines: Sequence[cst.CSTNode], name: str, given: list[Any]) -> Any:
    """The one ``scaler.transform(X)`` of what it was fitted on."""
    calls: list[Any] = [one for line in lines for one in blocks.walk(line) if kind(one) == "Call"]
    found = [one for one in calls if name and unit.text(one.func) == f"{name}.transform" and len(one.args) == 1]
    return found[0] if len(found) == 1 and given and unit.text(found[0].args[0].value) == unit.text(given[0]) else None


def _uses(unit: Unit, lines: Sequence[cst.CSTNode], applied: Any, scaled: str, *, same: bool) -> int:
    """How often the scaled rows are named after they were made; their shape is not counted if it stays the ``same``."""
    line = blocks.statement(unit, applied)
    rest = [one for one in lines if one is not line and unit.span(one).start.line > unit.span(applied).start.line]
    found = [one for whole in rest for one in blocks.walk(whole) if kind(one) == "Name" and unit.text(one) == scaled]
    above = [list(blocks.around(unit, one))[:2] for one in found]
    shapes = [one for one in above if unit.text(one[0]) == f"{scaled}.shape" or unit.text(one[-1]) == f"len({scaled})"]
    return len(found) - (len(shapes) if same else 0)


def _keeps_shape(unit: Unit, call: Any) -> bool:
    """Whether what it gives has the shape of what it gets, by its name."""
    name = unit.text(call.func.value).partition("(")[0]
    return name.endswith(("Scaler", "Transformer", "Normalizer", "scaler"))
