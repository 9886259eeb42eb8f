"""What lies in parts on several processes, made whole on rank 0; and what all of them do when rank 0 asks for it.

Rank 0 alone knows when it is time to save; since all of them have to take part, the others listen to it after each
event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from trueloop.checkpoint.signals import Asked
from trueloop.events import RunEnded, Stop
from trueloop.loop import Events
from trueloop.optim.parts import lies_in_parts
from trueloop.parallel.world import world

_NOTHING_MORE = -1


def whole(tree: Any) -> Any:
    """The same tree with whole tensors, on the CPU, in place of those that lie in parts; on the other ranks, None.

    One tensor after the other is gathered: rank 0 alone has to hold them all, in the host's memory. Every process calls
    it with the same tree.

    Example:
        >>> whole({"step": 3, "weights": [torch.ones(1)]})
        {'step': 3, 'weights': [tensor([1.])]}
    """
    if isinstance(tree, Tensor):
        if not lies_in_parts(tree):
            return tree
        gathered: Tensor = tree.full_tensor()  # type: ignore[attr-defined]
        return gathered.cpu() if world().first else None
    if isinstance(tree, dict):
        return type(tree)((key, whole(value)) for key, value in tree.items())
    if isinstance(tree, list) or type(tree) is tuple:
        return type(tree)(whole(value) for value in tree)
    return tree


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict with whole tensors on rank 0, as ``whole`` gathers them; tied weights are one tensor.

    Example:
        >>> list(whole_weights(nn.Linear(2, 1)))
        ['weight', 'bias']
    """
    state = model.state_dict()
    named: dict[nn.Parameter, str] = {}
    first = {name: named.setdefault(one, name) for name, one in model.named_parameters(remove_duplicate=False)}
    found = whole({name: tensor for name, tensor in state.items() if first.get(name, name) == name})
    return {name: found[first.get(name, name)] for name in state}


class Together:
    """What rank 0 has all processes do while an event is out.

    Args:
        *tasks: each is called on all of them when rank 0 calls ``do`` with its number.
    """

    def __init__(self, *tasks: Callable[..., Any]) -> None:
        self._tasks = tasks
        self.listening = False

    def do(self, number: int, *given: Any) -> Any:
        """On rank 0, while the others listen: the result of a task that all of them take part in.

        Args:
            number: of the task.
            *given: to rank 0's; the others call it without.
        """
        assert self.listening, "the others are in the middle of a step"
        _told(number)
        return self._tasks[number](*given)

    def between(self, events: Events, asked: Asked) -> Events:
        """The same events. After each, the other processes do what rank 0 asks for.

        Args:
            events: a run's, agreed upon by all processes.
            asked: says whether all of them stand at the same place when the run ends with an error.
        """
        stop: Stop | None = None
        error: BaseException | None = None
        while True:
            try:
                event = events.send(stop) if error is None else events.throw(error)
            except StopIteration:
                return
            stop, error = None, None
            ended_as_one = not isinstance(event, RunEnded) or event.status in ("finished", "stopped")
            self.listening = (ended_as_one or asked.stands_whole) and not asked.is_void
            try:
                stop = yield event
            except GeneratorExit:
                events.close()
                raise
            except BaseException as raised:
                error = raised
            if self.listening:
                try:
                    self._listen()
                except BaseException as lost:  # rank 0 is gone: the run is to end as it does for any error
                    error = error or lost

    def _listen(self) -> None:
        self.listening = False
        if world().first:
            _told(_NOTHING_MORE)
            return
        while (number := _told(_NOTHING_MORE)) != _NOTHING_MORE:
            self._tasks[number]()


def _told(number: int) -> int:
    """Rank 0's number, on every process."""
    told = torch.tensor(number)
    distributed.broadcast(told, src=0)
    return int(told)
