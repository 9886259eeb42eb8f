"""Updates by hand, without an optimizer: do the gradients of one update go on into the next?"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from trueloop.doctor.untended import figure

if TYPE_CHECKING:
    from torch import Tensor

MOST = 4
"""So many leaves of each backward are looked at."""


class _Left(NamedTuple):
    """What a backward left behind."""

    values: float
    gradient: float
    version: int


class ByHand:
    """Follows leaves whose values change between two backwards, and whether their gradients were cleared meanwhile.

    Example:
        >>> import torch
        >>> weight, by_hand = torch.ones(3, requires_grad=True), ByHand()
        >>> for _ in range(3):
        ...     by_hand.begun([weight])
        ...     weight.square().sum().backward()
        ...     by_hand.ended()
        ...     weight.data -= 0.1 * weight.grad
        >>> by_hand.uncleared, by_hand.updates
        (2, 2)
    """

    def __init__(self) -> None:
        from torch.utils.weak import WeakTensorKeyDictionary

        self._left: Any = WeakTensorKeyDictionary()
        self._reached: list[ref[Tensor]] = []
        self.updates = 0
        """Backwards that found other values than the one before had left."""
        self.uncleared = 0
        """How many of the last of them in a row found its gradients as well, untouched."""

    def begun(self, leaves: Iterable[Tensor]) -> None:
        """A backward is about to reach these."""
        self._reached = [ref(leaf) for leaf in islice(leaves, MOST)]
        moved = [
            _left_of(leaf).gradient == left.gradient != 0 and _version(leaf) == left.version
            for leaf in self._alive()
            if (left := self._left.get(leaf)) is not None and figure(leaf) != left.values
        ]
        if moved:
            self.updates += 1
            self.uncleared = self.uncleared + 1 if all(moved) else 0

    def ended(self) -> None:
        """It did."""
        for leaf in self._alive():
            self._left[leaf] = _left_of(leaf)

    def _alive(self) -> list[Tensor]:
        return [leaf for one in self._reached if (leaf := one()) is not None]


def _left_of(leaf: Tensor) -> _Left:
    gradient = leaf.grad
    whole = 0.0 if gradient is None else figure(gradient.coalesce().values() if gradient.is_sparse else gradient)
    return _Left(figure(leaf), whole, _version(leaf))


def _version(leaf: Tensor) -> int:
    return -1 if leaf.grad is None else leaf.grad._version
