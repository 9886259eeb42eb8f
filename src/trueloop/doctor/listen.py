"""``with listening():`` puts the probes in and takes every one out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from trueloop.doctor.catalogue import dynamic_rules
from trueloop.doctor.facts import Ended
from trueloop.doctor.findings import Finding
from trueloop.doctor.lines import Lines
from trueloop.doctor.patches import Patches
from trueloop.doctor.phases import settle
from trueloop.doctor.precedence import nearest_to_the_cause
from trueloop.doctor.probes import data, gradients, losses, modules, optimizers, scaling, schedules
from trueloop.doctor.rule import Rule
from trueloop.doctor.trace import CLOSE_EVERY, CLOSE_STEPS, Trace

PROBES = (modules, losses, gradients, optimizers, scaling, schedules, data)


@contextmanager
def listening(
    rules: Sequence[type[Rule]] | None = None,
    *,
    found: Callable[[Finding], None] | None = None,
    close_steps: int = CLOSE_STEPS,
    close_every: int = CLOSE_EVERY,
) -> Iterator[Trace]:
    """Listens to all training that happens inside, whoever's loop it is.

    Args:
        rules: the rules that listen; None takes every dynamic one of the catalogue.
        found: called with each finding as soon as it is made (before it is known which one is nearest to the cause).
        close_steps: so many first optimizer steps are looked at closely: values are read, not only order and state.
        close_every: after them, each so-many-th step is.

    Yields:
        The trace; after the block, its ``findings`` are complete, one a cause.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with listening() as trace:
        ...     for _ in range(5):
        ...         model(torch.ones(4, 2)).sum().backward()
        ...         optimizer.step()
        >>> [finding.name for finding in trace.findings if finding.level == "error"]
        ['missing-zero-grad']
    """
    trace = Trace(
        dynamic_rules() if rules is None else rules, found=found, close_steps=close_steps, close_every=close_every
    )
    patches = Patches()
    trace.lines = Lines()
    trace.lines.install(patches)
    remove = [probe.install(trace, patches) for probe in PROBES]
    error: BaseException | None = None
    try:
        yield trace
    except BaseException as raised:
        error = raised
        raise
    finally:
        trace.lines.stop()
        end(trace, error)
        for take_out in remove:
            take_out()
        for name in patches.undo():
            trace.note(f"{name} was replaced by the script while it ran: what went through it was not seen")


def end(trace: Trace, error: BaseException | None) -> None:
    """Nothing more will come: settles what is open, asks the rules for their last words, keeps the causes."""
    if trace.ended:
        return
    trace.ended, trace.error = True, error
    settle(trace, last=True)
    trace.tell(Ended(error))
    trace.findings = nearest_to_the_cause(trace.findings)
