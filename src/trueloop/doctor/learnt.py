"""The lines of operations in graphs whose lines torch did not keep: they are those of the first steps' graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from trueloop.doctor.findings import Place
from trueloop.doctor.graph import Graph, Node
from trueloop.doctor.nonfinite import leaves_first
from trueloop.doctor.places import in_traceback

LARGEST = 5_000
"""Of larger graphs no lines are learnt."""


class Learnt:
    """The lines of the operations in the first graphs.

    A training's graphs are the same from step to step, so an operation of a later one is known again by all that it
    was made from: the operations below it, down to the parameters.

    Example:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> learnt = Learnt()
        >>> first, later = (weight * 2).log(), (weight * 2).log().sum()
        >>> first.grad_fn.metadata["traceback_"] = ['  File "/home/someone/train.py", line 7, in loss']
        >>> learnt.learn(Graph((first.grad_fn,)))
        >>> place_of = learnt.finder(Graph((later.grad_fn,)))
        >>> [place.line if (place := place_of(Node(node))) else None for node in (first.grad_fn, later.grad_fn)]
        [7, None]
    """

    def __init__(self) -> None:
        self._places: dict[int, list[Place | None]] = {}  # by what it was made from; those alike as they were made

    def learn(self, graph: Graph) -> None:
        """Remembers the lines that torch has kept in a graph."""
        if len(graph.nodes) > LARGEST:
            return
        found: dict[int, list[Place | None]] = {}
        for node, key in _made_from(graph):
            found.setdefault(key, []).append(_place(node))
        for key, places in found.items():
            known = self._places.setdefault(key, places)
            if known != places and len({*known, *places}) > 1:
                known.clear()  # it stands on several lines, and which is meant cannot be told

    def finder(self, graph: Graph) -> Callable[[Node], Place | None]:
        """What tells the lines of a later graph's operations; the graph is read when it is first asked."""
        known: dict[Any, Place | None] = {}

        def place_of(node: Node) -> Place | None:
            own = node.place
            if own is not None or not self._places or len(graph.nodes) > LARGEST:
                return own
            if not known:
                alike: dict[int, list[Node]] = {}
                for one, key in _made_from(graph):
                    alike.setdefault(key, []).append(one)
                for key, nodes in alike.items():
                    places = self._places.get(key, [])
                    if len(set(places)) == 1:
                        places = places[:1] * len(nodes)
                    known.update((one.raw, place) for one, place in zip(nodes, places, strict=False))
                    if len(places) != len(nodes):
                        known.update((one.raw, None) for one in nodes)
            return known.get(node.raw)

        return place_of


def _made_from(graph: Graph) -> Iterator[tuple[Node, int]]:
    """Each operation, from the leaves on, with a number that says what it was made from, and how."""
    from torch import nn

    keys: dict[Any, int] = {None: 0}
    for node in leaves_first(graph):
        leaf = node.parameter
        below = tuple((keys[one], number) for one, number in node.raw.next_functions)
        # Data that wants a gradient is another tensor at each step; a parameter stays.
        own = id(leaf) if isinstance(leaf, nn.Parameter) else None
        keys[node.raw] = hash((node.op, own, below))
        yield node, keys[node.raw]


def _place(node: Node) -> Place | None:
    """As ``Node.place``; the same lines come again and again."""
    return next(filter(None, map(_in_line, reversed(node.raw.metadata.get("traceback_", ())))), None)


@cache
def _in_line(text: str) -> Place | None:
    return in_traceback((text,))
