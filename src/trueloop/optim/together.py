"""Several optimizers that are one: for Muon, which takes only matrices, and what takes the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch.optim import Optimizer

from trueloop.errors import ArgumentError


class Together(Optimizer):
    """One optimizer made of several, each with parameters of its own.

    ``param_groups`` are those of the parts, one after the other, and the very same dicts, so that schedules, gradient
    scalers and clipping see one optimizer; ``state`` is one dict that the parts share.

    Args:
        parts: at least one optimizer; no parameter may be in two of them.

    Example:
        >>> matrix, bias = torch.nn.Linear(2, 2).parameters()
        >>> both = Together(torch.optim.Muon([matrix], lr=0.02), torch.optim.AdamW([bias], lr=1e-3))
        >>> [group["lr"] for group in both.param_groups]
        [0.02, 0.001]
    """

    parts: tuple[Optimizer, ...] = ()

    def __init__(self, *parts: Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], defaults={})
        self.parts = parts
        for part in parts:
            self.state.update(part.state)
            part.state = self.state

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of every part, in order; the closure is called once, before them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; the parts get what is theirs (torch makes new groups and a new state when it loads)."""
        super().load_state_dict(state_dict)
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.__setstate__({"state": self.state, "param_groups": self.param_groups[start:end]})
            start = end

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once it is made: nobody could tell which part is to train the group."""
        if self.parts:
            raise ArgumentError(
                "a group cannot be added to several optimizers at once, got "
                f"{len(list(param_group['params']))} parameters; make the optimizer anew, with them in one of its parts"
            )
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts}
