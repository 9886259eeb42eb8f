"""The ways through what happens in a script, and the loops in which it happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, TypeVar

from trueloop.doctor.source.events import Backward, Event, Stepped
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.values import At, Function

PATHS = 5  # conditions whose answers are all combined

Kind = TypeVar("Kind")


@dataclass(eq=False, frozen=True)
class Run:
    """What happens from one way into the file: its top level, or a function that nothing in it calls."""

    entry: Function | None
    events: Sequence[Event]
    complete: bool

    def of(self, *kinds: type[Kind]) -> Iterator[Kind]:
        """The events of these kinds."""
        return (event for event in self.events if isinstance(event, kinds))

    @cached_property
    def learned(self) -> frozenset[int]:
        """The identities of all values that go into what is backpropagated, with or without its graph."""
        return frozenset(id(one) for event in self.of(Backward) for one in ancestors(event.loss))


def paths(run: Run, *kinds: type[Any]) -> Iterator[list[Any]]:
    """The ways through a run, each as a list of its events of these kinds: every condition answered one way throughout.

    Only conditions on which such events hang are answered. Of more than a few, not all combinations are tried.
    """
    events = [event for event in run.events if isinstance(event, kinds)]
    arms: dict[str, int] = {}
    for event in events:
        for branch in event.at.branches:
            least = 1 if branch.key.startswith("try ") else 2
            arms[branch.key] = max(arms.get(branch.key, least), branch.arm + 1)
    keys = list(arms)
    choices: list[dict[str, int]] = []
    if len(keys) <= PATHS:
        choices = [dict(zip(keys, choice, strict=True)) for choice in product(*(_range(k, arms[k]) for k in keys))]
    else:
        for base in (0, 1):
            all_same = {key: min(base, len(_range(key, arms[key])) - 1) for key in keys}
            choices.append(all_same)
            choices += [{**all_same, key: arm} for key in keys for arm in _range(key, arms[key])]
    seen: set[tuple[int, ...]] = set()
    for choice in choices:
        chosen = [n for n, event in enumerate(events) if all(choice[b.key] == b.arm for b in event.at.branches)]
        if tuple(chosen) not in seen:
            seen.add(tuple(chosen))
            yield [events[n] for n in chosen]


def _range(key: str, count: int) -> range:
    return range(1) if key.startswith("try ") else range(count)  # what is done after an error is not judged


def training_loops(run: Run) -> set[int]:
    """The loops (by number) in which a backward or a step happens, directly or through calls."""
    return {turn.loop for event in run.events if isinstance(event, (Backward, Stepped)) for turn in event.at.loops}


def same_turn(one: At, other: At) -> bool:
    """Whether two things happen in the same turn of the innermost loop that holds both, and in no other loop."""
    return one.loops == other.loops


def common_loop(one: At, other: At) -> int | None:
    """The innermost loop that holds both, in whichever turns."""
    found = None
    for a, b in zip(one.loops, other.loops, strict=False):
        if a.loop != b.loop:
            break
        found = a.loop
        if a.number != b.number:
            break
    return found
