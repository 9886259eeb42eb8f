"""The machine that "runs" a script without running it: what every name stands for now, and what has happened so far.

Everything that changes (names, attributes, modes, lists) stands in dicts, and each change is written on a trail. So a
condition that is not known can be gone through once for each answer, from the same state, and the states are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from trueloop.doctor.source.events import Event
from trueloop.doctor.source.values import At, Branch, Class, Function, Object, Scope, Turn, Value, join

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.units import Unit

End = Literal["return", "break", "continue", "raise"] | None
"""How a piece of a program ends: None if it goes on with the next."""

MISSING: Any = object()
Snapshot = dict[tuple[int, Any], tuple[dict[Any, Any], Any, Any]]
"""What was written: by dict and key: the dict, the key, the value."""


class OutOfFuel(Exception):
    """The budget of a file is used up: what is read so far says nothing of what is missing."""


@dataclass(slots=True)
class Frame:
    """One call of a function of the user's, or a module's top level."""

    scope: Scope
    unit: Unit
    function: Function | None = None
    of: Value | None = None
    mark: int = 0
    returned: list[Value] = field(default_factory=list)
    yielded: list[Value] | None = None  # of a generator
    exits: list[Snapshot] = field(default_factory=list)
    body: Callable[[Value], None] | None = None  # of the `with` that this generator was called for


@dataclass(slots=True)
class Way:
    """The loop that runs: where its states at ``break`` and ``continue`` are kept."""

    mark: int
    turn_mark: int
    conditions: tuple[Branch, ...] = ()  # under which it runs
    breaks: list[Snapshot] = field(default_factory=list)
    continues: list[Snapshot] = field(default_factory=list)


@dataclass(slots=True)
class Machine:
    """What is true at this point of the reading.

    Args:
        evaluate: the value of an expression's node.
        perform: runs statements.
        invoke: calls a value.
        fuel: so many steps more.
    """

    unit: Unit
    evaluate: Callable[[Machine, cst.CSTNode], Value]
    perform: Callable[[Machine, Sequence[cst.CSTNode]], End]
    invoke: Callable[[Machine, Value, tuple[Value, ...], dict[str, Value], cst.CSTNode], Value]
    fuel: int
    strict: bool = False  # tests want the machine's own errors
    events: list[Event] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    loops: tuple[Turn, ...] = ()
    calls: tuple[cst.CSTNode, ...] = ()
    branches: tuple[Branch, ...] = ()
    state: dict[Any, Any] = field(default_factory=lambda: {"grad": True})
    trail: list[tuple[dict[Any, Any], Any, Any]] = field(default_factory=list)
    inside: int = 0  # how many models' forwards we are in
    silent: int = 0  # while a neighbour's top level runs, nothing is told
    loop_number: int = 0
    bodies: dict[int, Callable[[Value], None]] = field(default_factory=dict)  # of `with`, by the call in its head
    left_out: int = 0  # functions that the machine could not read
    entered: set[int] = field(default_factory=set)  # nodes of functions that were called
    functions: list[Function] = field(default_factory=list)
    classes: list[Class] = field(default_factory=list)
    objects: dict[int, Object] = field(default_factory=dict)  # by their class's node, the first of each
    modules: dict[str, Value] = field(default_factory=dict)

    @property
    def frame(self) -> Frame:
        """The call that runs now."""
        return self.frames[-1]

    @property
    def at(self) -> At:
        """Here and now."""
        return At(self.frames[-1].unit, self.loops, self.calls, self.branches)

    def tell(self, event: Event) -> None:
        """Adds to what happened."""
        if not self.silent:
            self.events.append(event)

    def burn(self) -> None:
        """Uses one step of the budget."""
        self.fuel -= 1
        if self.fuel < 0:
            raise OutOfFuel

    def write(self, where: dict[Any, Any], key: Any, value: Any) -> None:
        """Changes a name, an attribute or another thing that is kept in a dict; the trail remembers what was there."""
        self.trail.append((where, key, where.get(key, MISSING)))
        where[key] = value

    def written(self, mark: int) -> Snapshot:
        """What was written since a mark on the trail, as it stands now."""
        return {(id(d), key): (d, key, d.get(key, MISSING)) for d, key, _ in self.trail[mark:]}

    def undo(self, mark: int) -> None:
        """Back to how it was at a mark."""
        while len(self.trail) > mark:
            d, key, old = self.trail.pop()
            if old is MISSING:
                d.pop(key, None)
            else:
                d[key] = old

    def meet(self, mark: int, exits: Sequence[Snapshot], *, here: bool = True) -> None:
        """Joins the state with those of other ways that lead to this point.

        Args:
            mark: where the ways parted.
            exits: what each of the others had written since.
            here: whether the present state comes to this point as well.
        """
        if not exits:
            return
        first: Snapshot = {}
        for d, key, old in self.trail[mark:]:
            first.setdefault((id(d), key), (d, key, old))
        keys = {name: (d, key) for exit in (first, *exits) for name, (d, key, _) in exit.items()}
        for name, (d, key) in keys.items():
            now = d.get(key, MISSING)
            before = first[name][2] if name in first else now
            values = [now] if here else []
            values += [exit[name][2] if name in exit else before for exit in exits]
            value = _joined(values)
            if value is not MISSING and value is not now:
                self.write(d, key, value)

    def part(self, key: str, arms: Sequence[Callable[[], End]]) -> End:
        """Goes several ways from one state, one after the other, and joins what they lead to.

        A way that ends (by ``return``, ``break``…) does not come to the meeting point; if all but one end so, what
        follows stands under the condition of the one.
        """
        mark = len(self.trail)
        around = self.branches
        live: list[tuple[int, Snapshot]] = []
        ends: list[End] = []
        for number, arm in enumerate(arms):
            self.branches = (*around, Branch(key, number))
            end = arm()
            if end is None:
                live.append((number, self.written(mark)))
            ends.append(end)
            self.undo(mark)
        self.branches = around
        if not live:
            return next((end for end in ends if end != "raise"), "raise")
        names = {name: (d, key) for _, snapshot in live for name, (d, key, _) in snapshot.items()}
        for name, (d, k) in names.items():
            now = d.get(k, MISSING)
            self.write(d, k, _joined([s[name][2] if name in s else now for _, s in live]))
        if len(live) < len(ends) and len(live) == 1:
            self.branches = (*around, Branch(key, live[0][0]))
        return None


def _joined(values: Sequence[Any]) -> Any:
    there = [value for value in values if value is not MISSING]
    if not there:
        return MISSING
    found = there[0]
    for value in there[1:]:
        found = join(found, value)
    return found
