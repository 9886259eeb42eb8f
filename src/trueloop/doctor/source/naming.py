"""What a thing is called where it is made, and whether it goes by that name elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueloop.doctor.source import blocks
from trueloop.doctor.source.blocks import kind

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.units import Unit
    from trueloop.doctor.source.values import At


def name_of(unit: Unit, node: cst.CSTNode) -> str:
    """What the value of a node is called where it is made: ``self.loader`` in ``self.loader = DataLoader(…)``."""
    chain: list[Any] = list(blocks.around(unit, node))[:3]
    if not chain:
        return ""
    if kind(chain[0]) == "AnnAssign":
        return unit.text(chain[0].target)
    if kind(chain[0]) == "Assign" and len(chain[0].targets) == 1:
        return unit.text(chain[0].targets[0].target)
    if [kind(one) for one in chain] != ["Element", "Tuple", "Assign"] or len(chain[2].targets) != 1:
        return ""
    target, made = chain[2].targets[0].target, chain[1].elements  # a, b = first(), second()
    if kind(target) != "Tuple" or len(target.elements) != len(made):
        return ""
    return unit.text(target.elements[list(made).index(chain[0])].value)


def is_seen(unit: Unit, name: str, made: cst.CSTNode, place: cst.CSTNode) -> bool:
    """Whether what is called ``name`` where it is made goes by the same name at another place."""
    words = name.split(".")
    if not all(word.isidentifier() for word in words):
        return False
    home, here = _homes(unit, made), _homes(unit, place)
    if len(words) > 1 and words[0] == "self":  # ``self.loader``
        cls = _class(unit, made)
        return cls is not None and cls is _class(unit, place)
    if home and (not here or home[0] not in here):
        return False
    inner = here[: here.index(home[0])] if home else here
    return not any(_binds(unit, one, words[0]) for one in inner)


def uses_on_the_way(unit: Unit, name: str, at: At, but: set[int]) -> list[cst.CSTNode]:
    """Where a name is gone through, or handed in, on the way to something that happens; not in the calls ``but``."""
    heads = [turn.node.iter for turn in at.loops[-1:] if hasattr(turn.node, "iter")]
    calls: list[Any] = [call for call in at.calls if id(call) not in but]
    places = [*heads, *(one.value for call in calls for one in getattr(call, "args", ()))]
    return [one for place in places for one in blocks.walk(place) if name and unit.text(one) == name]


def _homes(unit: Unit, node: cst.CSTNode) -> list[Any]:
    """The functions that a node is in, the innermost first."""
    return [one for one in blocks.around(unit, node) if kind(one) in blocks.FUNCTIONS]


def _class(unit: Unit, node: cst.CSTNode) -> cst.CSTNode | None:
    return next((one for one in blocks.around(unit, node) if kind(one) == "ClassDef"), None)


def _binds(unit: Unit, function: Any, name: str) -> bool:
    """Whether a function has a parameter or a variable of its own of this name."""
    params = (one.name.value for one in blocks.walk(function) if kind(one) == "Param")  # type: ignore[attr-defined]
    return name in params or name in blocks.stored(unit, function.body)
