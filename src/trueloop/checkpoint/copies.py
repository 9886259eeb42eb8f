"""The only part of a save that training waits for: a copy of the state in the host's memory."""

from __future__ import annotations

import torch
from torch import Tensor

from trueloop.optim.parts import own_part, with_part


class Copies:
    """Copies tensors to the host, into the memory of the save before where their shapes allow it.

    New memory costs the kernel more than the copy itself (it clears each page), so it is kept: from its first save on,
    a run holds one more copy of its state. The save before must be written by then; ``saving`` sees to that.

    Example:
        >>> copies, weight = Copies(), torch.ones(2)
        >>> first = copies("weight", weight)
        >>> again = copies("weight", 2 * weight)
        >>> again.tolist(), first.data_ptr() == again.data_ptr()
        ([2.0, 2.0], True)
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._devices: set[torch.device] = set()

    @torch.no_grad()
    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """The copy: contiguous, on the CPU, of the same dtype and shape. On its way, from an accelerator: ``wait``.

        Of a tensor that lies in parts on several processes, each copies its own.
        """
        part = own_part(tensor)
        kept = self._kept.get(name)
        if kept is None or kept.shape != part.shape or kept.dtype != part.dtype:
            kept = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
            self._kept[name] = kept
        if part.is_cuda:
            self._devices.add(part.device)
        return with_part(tensor, kept.copy_(part.detach(), non_blocking=part.is_cuda))

    def wait(self) -> None:
        """Until every copy has arrived."""
        for device in self._devices:
            torch.cuda.synchronize(device)
