"""What each pass was for, told from what followed: a backward went through its output, or none did.

Names and modes are not asked: a pass in eval mode that is trained on is a training pass, and that is what a rule wants
to know. Unused passes of a model between two of its steps are one round, over held-out samples or over those that it
trains on; whether a round was an evaluation, or an ingredient of the training, is told by when it comes and over what.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from trueloop.doctor.facts import Evaluated, Settled
from trueloop.doctor.seen import Accumulation, Data, LoaderSeen, OptimizerSeen, Pass, Round
from trueloop.doctor.trace import SAMPLES_KEPT, Trace

PATIENCE = 2
"""A pass with a graph may be reached by a later backward (a GAN's fakes, summed losses); after so many it is not."""
ROUND = 64
"""Passes of a round that are kept; a guess: a validation of a small script has fewer."""
SAME = 0.9
"""The share of samples that must be known for the data to be the same (a few may be new: not every step is looked at
closely), and whose complement may be known by chance (duplicates); a guess."""
WIDE = 4
"""Samples of fewer values than this are alike by chance (a user's number), where they are not the only input."""


def settle(trace: Trace, *, last: bool = False) -> tuple[Pass, ...]:
    """Settles the open passes, now that a backward has ended.

    Args:
        trace: whose ``open`` passes are settled as far as can be, and whose ``reached`` is emptied.
        last: nothing more will come: all are settled.

    Returns:
        The passes that the backward went through.
    """
    reached = tuple(trace.reached[number] for number in sorted(trace.reached))
    trace.reached.clear()
    fresh = [current for current in reached if current.phase == "open"]
    for current in fresh:
        current.phase = "training"
        current.model.trained += 1
        if not trace.optimizers:  # weights are moved by hand
            _keep(trace.training_samples, current)
    waiting: list[Pass] = []
    unused: list[Pass] = []
    for current in trace.open:
        if current.phase == "open":
            current.waited += 1
            patient = current.needs_grad and current.waited <= PATIENCE and not last
            (waiting if patient else unused).append(current)
    for current in unused:
        current.phase = "unused"
        current.model.unused += 1
        _keep(trace.unused_samples, current)
        _gather(trace, current)
    for model in {current.model for current in reached}:
        model.segments += 1
    for model in {current.model for current in unused}:
        model.segments_with_unused += 1
    trace.open[:] = waiting
    for current in [*fresh, *unused]:
        trace.tell(Settled(current))
    if trace.rounds:
        _close(trace, last)
    return reached


def stepped(trace: Trace, seen: OptimizerSeen, accumulated: Sequence[Accumulation], passes: Sequence[Pass]) -> None:
    """An optimizer has stepped: its passes were training, and so were their samples and loaders.

    Args:
        trace: where it is kept.
        seen: the optimizer.
        accumulated: the backwards that it stepped on.
        passes: those that these backwards went through.
    """
    if accumulated:
        turn = (seen.number, accumulated[-1].backward)
        if trace.turn is not None and trace.turn[0] != turn[0] and trace.turn[1] != turn[1]:
            trace.turns += 1
        trace.turn = turn
    seen.models = tuple({one.model for one in passes})
    for model in seen.models:
        model.first_step = trace.step if model.first_step is None else model.first_step
        model.last_step = trace.step
        model.steps += 1
    for one in passes:
        known = one.model.trained_samples
        if one.samples:
            one.model.novelty = sum(sample not in known for sample in one.samples) / len(one.samples)
            if len(known) < SAMPLES_KEPT:
                known.update(dict.fromkeys(one.samples, trace.step))
            _keep(trace.training_samples, one)
        if one.loader is not None:
            one.loader.trains = True
            if one.loader.trained[-1:] != [one.loader.iterations - 1]:
                one.loader.trained.append(one.loader.iterations - 1)
            trace.epoch = one.loader.iterations - 1
            if one.loader not in one.model.loaders:
                one.model.loaders = [*one.model.loaders[-3:], one.loader]


def same_data(loader: LoaderSeen, other: LoaderSeen) -> bool:
    """Whether most of what a loader gives stands in another loader's data: the same dataset, or the same rows of it."""
    if loader is other:
        return True
    return loader.rows is not None and other.rows is not None and loader.rows.mostly_in(other.rows)


def _made_alike(loader: LoaderSeen, other: LoaderSeen) -> bool:
    """Whether two datasets may be two copies of one: of the same class, and as long."""
    one, two = loader.rows, other.rows
    return one is not None and two is not None and one.size is not None and (one.kind, one.size) == (two.kind, two.size)


def rows_shared(loader: LoaderSeen, other: LoaderSeen) -> tuple[int, int, int] | None:
    """How many rows two loaders of one dataset have in common, and how many each has.

    Returns:
        None if they are not of one dataset, or if which rows they give cannot be told.
    """
    return None if loader.rows is None or other.rows is None else loader.rows.shared(other.rows)


def _data(trace: Trace, current: Pass) -> Data:
    """Over what a pass was. The batch itself says it best, then the samples, then a batch of the same length."""
    model, loader = current.model, current.loader
    by_loader: Data = "unknown"
    if loader is not None:
        if loader.trains or any(same_data(loader, other) for other in model.loaders):
            by_loader = "training"
        elif any(other.trains for other in trace.loaders):
            by_loader = "held-out"
    alike = loader is not None and by_loader == "held-out" and any(_made_alike(loader, one) for one in model.loaders)
    if loader is not None and current.owned and not alike:
        return by_loader
    samples = {sample for sample in current.samples if sample}
    shape = current.shapes[0] if current.shapes else ()
    telling = not model.fed and len(shape) > 1 and (prod(shape[1:]) >= WIDE or len(current.shapes) == 1)
    if not telling or len(samples) < SAME * len(current.samples) or not samples:
        return by_loader
    known = sum(sample in model.trained_samples for sample in samples) / len(samples)
    if known >= SAME:
        return "training"
    if current.owned:
        return by_loader
    if known > 1 - SAME:
        return "unknown"
    if by_loader == "training":
        return "held-out" if model.novelty < 0.5 else "unknown"
    if by_loader == "unknown" and trace.step > trace.close_steps and model.novelty > 0.5:
        return "unknown"  # not all that it trained on was looked at
    return "held-out"


def _gather(trace: Trace, current: Pass) -> None:
    """Puts an unused pass into its round."""
    model = current.model
    if model.first_step is None or current.step <= model.first_step:
        model.early += 1
        return
    current.data = _data(trace, current)
    loader = current.loader
    key = (model.number, current.step, None if loader is None else loader.number, current.data)
    if key not in trace.rounds:
        trace.rounds[key] = Round(model, current.step, current.epoch, loader, current.data)
    if model.round_step != current.step:
        model.round_step = current.step
        model.rounds += 1
    gathered = trace.rounds[key]
    gathered.count += 1
    if len(gathered.passes) < ROUND:
        gathered.passes.append(current)


def _close(trace: Trace, last: bool) -> None:
    """Tells of the rounds to which no pass can come any more."""
    waiting = {(current.model.number, current.step) for current in trace.open}
    done = [key for key in trace.rounds if last or (trace.step > key[1] and key[:2] not in waiting)]
    for number, step, loader, data in done:
        gathered = trace.rounds.pop((number, step, loader, data))
        model = gathered.model
        samples = {sample for one in gathered.passes for sample in one.samples if sample}
        known = len(samples & model.evaluated_samples)
        before = model.round_steps.get((loader, data))
        gathered.again = 2 * known >= len(samples) if samples else before is not None
        gathered.last = last and step == trace.step
        gathered.evaluates = _evaluates(trace, gathered, fresh=before is None or model.last_step >= before)
        model.round_steps[loader, data] = step
        if len(model.evaluated_samples) < SAMPLES_KEPT:
            model.evaluated_samples |= samples
        trace.tell(Evaluated(gathered))


def _evaluates(trace: Trace, gathered: Round, fresh: bool) -> bool:
    """``fresh``: the model was stepped on since the last round over the same data (a teacher is not)."""
    if not fresh or gathered.data == "unknown" or not trace.evaluates(gathered.passes[0]):
        return False
    if gathered.data == "held-out" and (gathered.loader is None or gathered.loader.trains):
        return gathered.again or gathered.last  # a rollout is neither
    return True


def _keep(samples: dict[int, int], current: Pass) -> None:
    if len(samples) < SAMPLES_KEPT:
        for sample in current.samples:
            samples.setdefault(sample, current.step)
