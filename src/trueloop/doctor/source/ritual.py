"""Which backward belongs to which step, which forward to which backward."""

from __future__ import annotations

from collections.abc import Iterator

from trueloop.doctor.source.events import Backward, Called, Escaped, GradientsUsed, Stepped, Zeroed
from trueloop.doctor.source.modules import owner, parts
from trueloop.doctor.source.provenance import ancestors, clears, feeds, held, touches, trains, weights
from trueloop.doctor.source.values import At, Items, Object, Tensor, Unknown, Value
from trueloop.doctor.source.ways import Run


def optimizers(run: Run) -> list[Value]:
    """What is stepped in a run, each once."""
    found: dict[int, Value] = {id(event.target): event.target for event in run.of(Stepped)}
    return list(found.values())


def is_step(event: object, optimizer: Value) -> bool:
    """Whether something is a step of an optimizer."""
    return isinstance(event, Stepped) and event.target is optimizer


def gives(run: Run, backward: Backward, optimizer: Value) -> bool:
    """Whether a backward gives an optimizer its gradients: as far as it is known, or because there is no other."""
    answer = trains(optimizer, backward.loss)
    return len(optimizers(run)) <= 1 if answer is None else answer


def may_clear(event: object, optimizer: Value) -> bool:
    """Whether something may clear an optimizer's gradients, or change them in a way that is not followed."""
    if isinstance(event, Zeroed):
        return clears(event.target, optimizer) is not False
    if isinstance(event, Escaped):
        return touches(event.values, optimizer)
    if isinstance(event, GradientsUsed):
        if not isinstance(optimizer, Object):
            return True
        own, more = held(optimizer.option("params", 0))
        return (
            more or bool(own & {id(one) for one in (event.target, owner(event.target))}) or owner(event.target) is None
        )
    return False


def across_turns(one: At, other: At) -> bool:
    """Whether two things happen in different turns of a loop that holds both."""
    for a, b in zip(one.loops, other.loops, strict=False):
        if a.loop != b.loop:
            return False
        if a.number != b.number:
            return True
    return False


def is_trained(run: Run, model: Value) -> bool:
    """Whether a backward in the run reaches a model's parameters."""
    own = {id(one) for one in parts(model)} | {id(model)}
    for event in run.of(Backward):
        reached, _ = weights(event.loss)
        if own & reached:
            return True
    return False


def used_for_training(run: Run, value: Value) -> bool:
    """Whether a value goes into anything that is backpropagated, with or without its graph."""
    return id(value) in run.learned


def learned_from(run: Run, called: Called) -> Iterator[Backward]:
    """The backwards that go through a model's call."""
    for event in run.of(Backward):
        if any(feeds(one, event.loss, graph=True) for one in _leaves(called.result)):
            yield event


def fed(run: Run) -> Iterator[tuple[Object, Backward]]:
    """The loaders of torch's whose batches are trained on, each with its last backward in a loop with a step."""
    found: dict[int, tuple[Object, Backward]] = {}
    stepped = {turn.loop for event in run.of(Stepped) for turn in event.at.loops}
    for event in run.of(Backward):
        if stepped.isdisjoint(turn.loop for turn in event.at.loops):
            continue
        for one in ancestors(event.loss):
            of = one.inputs[0] if isinstance(one, Tensor) and one.op == "fetched" else None
            if isinstance(of, Object) and of.kind == "torch.utils.data.DataLoader":
                found[id(of.node)] = of, event
    yield from found.values()


def _leaves(value: Value) -> tuple[Value, ...]:
    return value.all() if isinstance(value, Items) else (value,)


def is_stepped(run: Run, model: Value) -> bool:
    """Whether an optimizer that steps in the run holds a model's parameters."""
    own = {id(one) for one in parts(model)} | {id(model)}
    for optimizer in optimizers(run):
        if isinstance(optimizer, Object) and own & held(optimizer.option("params", 0))[0]:
            return True
        if isinstance(optimizer, Unknown) and isinstance(model, Unknown):
            return True  # both were handed in together
    return False
