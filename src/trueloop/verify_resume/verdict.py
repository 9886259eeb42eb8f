"""What comes of a trial: the records of its runs, compared bit by bit, and the likely cause of what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trueloop.verify_resume.record import Entries, Record, Window
from trueloop.verify_resume.roles import AGAIN, HALFWAY, OWN, OWN_RESUMED, RESUMED, UNBROKEN


@dataclass(frozen=True)
class Verdict:
    """Whether a resumed run is the run that was never stopped.

    Attributes:
        exact: every batch, every loss and the state at the end had the same bits.
        lines: what was tried, or what differs and why.

    Example:
        >>> print(Verdict(False, ("NOT exact: another batch at step 8", "the sampler keeps `at`")))
        NOT exact: another batch at step 8
          the sampler keeps `at`
    """

    exact: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join(self.lines)


def verdict(records: Mapping[str, Record]) -> Verdict:
    """Of the runs that there are: without those of a loop of one's own, nothing is said of it."""
    if found := differences(records):
        return Verdict(False, (f"NOT exact: {found[0]}", *found[1:]))
    inexact = records[UNBROKEN].inexact
    doubts = [] if inexact is None else [f"which cannot be promised: {inexact}"]
    return Verdict(True, (*_tried(records), *doubts, *_not_tried(records)))


def differences(records: Mapping[str, Record]) -> list[str]:
    """What differs between the runs that there are, and why; none where all is exact."""
    for role in (AGAIN, HALFWAY):
        if role in records and (found := _between_equals(records[UNBROKEN], records[role])):
            return found  # nothing can be said of a resume, then
    if RESUMED in records and (found := _after_resume(records[UNBROKEN], records[RESUMED], "step")):
        return found
    if OWN_RESUMED in records and (found := _after_resume(records[OWN], records[OWN_RESUMED], "microbatch")):
        return [f"in a loop of your own, saved within an accumulation window: {found[0]}", *found[1:]]
    return []


def _tried(records: Mapping[str, Record]) -> list[str]:
    unbroken = records[UNBROKEN]
    at = len(unbroken.windows[: unbroken.saved_after])
    before, after = unbroken.windows[at - 1], unbroken.windows[at : at + 1]
    inside = bool(after) and after[0].epoch == before.epoch
    place = "in the middle of an epoch" if inside else "at the end of an epoch"
    whole = (
        f"exact: killed after step {before.step}, {place}, and resumed in a new process, it had at step "
        f"{unbroken.windows[-1].step} every bit of the run that was never stopped"
    )
    if OWN_RESUMED not in records:
        return [whole]
    own = records[OWN]
    step = own.windows[own.saved_after or 0].step
    return [whole, f"and so in a loop of your own, saved within the accumulation window of step {step}"]


def _not_tried(records: Mapping[str, Record]) -> list[str]:
    unbroken = records[UNBROKEN]
    notes = []
    if unbroken.per_epoch == 1:
        notes.append("an epoch has 1 step, so there is no place within one to stop at")
    elif unbroken.windows[-1].epoch == 0:
        least = "" if unbroken.per_epoch is None else f" of {unbroken.per_epoch:,} steps"
        notes.append(f"the epoch{least} did not end within the trial: a larger verify_steps sees it end")
    if OWN in records and records[OWN].refused is not None:
        notes.append(f"a loop of your own was not tried: {records[OWN].refused}")
    if unbroken.left_aside:
        notes.append(f"left out, as observers without state_dict: {', '.join(unbroken.left_aside)}")
    return notes


# --- two runs from the same beginning ------------------------------------------------------------------------------


def _between_equals(first: Record, second: Record) -> list[str]:
    """What differs between two runs that nobody has resumed: no checkpoint can mend that."""
    two = "two runs from the same beginning, neither of them resumed,"
    if first.data != second.data:
        return [f"{two} were given other data: {_UNSEEDED}", *_hashing(first, second)]
    ours, theirs = first.moments["began"], second.moments.get("began", {})
    weights = _differing(ours, theirs, "model/") if theirs else []
    if weights:
        return [f"{two} began with other weights ({_listed(weights)}): {_UNSEEDED}"]
    length = min(len(first.windows), len(second.windows))
    for one, other in zip(first.windows[:length], second.windows[:length], strict=True):
        if one.batches != other.batches:
            return [f"{two} got other batches at step {one.step}: {_UNSEEDED}", *_hashing(first, second)]
        if one.loss != other.loss:
            return [f"{two} had other losses at step {one.step} with the same data: {_BY_CHANCE}", _DRAW]
    if not second.moments.get("ended"):
        return []
    left = _differing(first.moments["ended"], second.moments["ended"])
    if left or len(first.windows) != len(second.windows):
        return [f"{two} ended differently, with the same batches and losses: {_listed(left) or 'one of them earlier'}"]
    return []


_BY_CHANCE = (
    "the forward pass or the loss draws from what no seed reaches (a clock, os.urandom, random.SystemRandom), or a "
    "kernel is not deterministic"
)
_DRAW = "draw from the global generators of torch, numpy and python; for kernels: Trainer(deterministic=True)"
_UNSEEDED = "they come from what no seed reaches (a clock, os.urandom, the order of a set of strings)"


def _hashing(first: Record, second: Record) -> list[str]:
    """Values that the data holds and that differ from the beginning."""
    names = _differing(first.unsaved.get("began", {}), second.unsaved.get("began", {}))
    return [f"already different at the beginning: {_listed(names)}"] * bool(names)


# --- a run, and the one that was resumed ---------------------------------------------------------------------------


def _after_resume(unbroken: Record, resumed: Record, unit: str) -> list[str]:
    windows = unbroken.windows[unbroken.saved_after :]
    what = _first_difference(windows, resumed.windows, unit)
    if what is None:
        left = _differing(unbroken.moments["ended"], resumed.moments["ended"])
        if not left:
            return []
        what = f"the resumed run had the same batches and losses, and ended with other values of {_listed(left)}"
    return [what, *_causes(unbroken, resumed, of_data="batch" in what.partition(":")[0])]


def _first_difference(windows: list[Window], resumed: list[Window], unit: str) -> str | None:
    for number, (one, other) in enumerate(zip(windows, resumed, strict=False)):
        at = f"at step {one.step}" + (f" (microbatch {number + 1} after the save)" if unit == "microbatch" else "")
        if one.batches != other.batches:
            return f"the resumed run got another batch {at}"
        if one.loss != other.loss:
            return f"the resumed run had another loss {at} with the same data"
        if one.step != other.step:
            return f"the resumed run counted {other.step} {at}"
    if len(windows) != len(resumed):
        last = [run[-1].step if run else 0 for run in (windows, resumed)]
        return f"the resumed run ended at step {last[1]}, the other at step {last[0]}"
    return None


def _causes(unbroken: Record, resumed: Record, *, of_data: bool) -> list[str]:
    lines = []
    reasons = [reason for reason in (resumed.inexact, unbroken.inexact) if reason is not None]
    if reasons:
        lines.append(reasons[0])
    if unbroken.data != resumed.data:
        lines.append(
            "the data is other data in the new process: seed what makes it (the recipe's first line: tl.seed_all(seed))"
        )
    at_save, resumed_at = unbroken.unsaved.get("halfway", {}), resumed.unsaved["began"]
    at_first = unbroken.unsaved["began"]
    lost = _differing(at_save, resumed_at)
    moved = [name for name in lost if at_first.get(name) != at_save.get(name)]
    ours = [name for name in moved if name.startswith(_OF_DATA) == of_data] or moved
    lines += [f"`{name}` moves with the training and is not saved: {_advice(name)}" for name in ours[:_MOST]]
    strange = [name for name in lost if name not in moved]
    lines += [f"`{name}` is another one in each process: seed what makes it" for name in strange[:_MOST] if not ours]
    if not lines:
        missing = _differing(unbroken.moments.get("halfway", {}), resumed.moments["began"])
        if missing:
            lines.append(f"not as it was, when the run went on: {_listed(missing)}")
    return lines or [_UNKNOWN]


_MOST = 3
_OF_DATA = ("dataset", "sampler", "batch_sampler", "collate_fn")
_UNKNOWN = (
    "its cause was not found among model, loss, data and all that is saved: look for state in files, in other objects "
    "or in extensions written in C; what has a state_dict can be kept by trainer.keep['name'] = …"
)


def _advice(name: str) -> str:
    root = name.partition(".")[0].partition(" ")[0]
    if root == "model":
        return "make it a buffer (self.register_buffer), or give it by get_extra_state and set_extra_state"
    if root in ("sampler", "batch_sampler"):
        return "give the sampler state_dict and load_state_dict, or make its order a function of set_epoch(number)"
    if root in _OF_DATA:
        return "make it a function of epoch and index, or keep it: trainer.keep['data'] = an object with state_dict"
    return f"keep it: trainer.keep[{root!r}] = an object with state_dict and load_state_dict"


def _differing(first: Entries, second: Entries, start: str = "") -> list[str]:
    names = {**first, **second}
    return [name for name in names if name.startswith(start) and first.get(name) != second.get(name)]


def _listed(names: list[str]) -> str:
    """A few of them, without the name of the file that they are saved in where that says nothing.

    Example:
        >>> _listed(["model/0.weight", "optimizer/state/0.weight/exp_avg", "state/rngs/torch", "state/buffers/table"])
        'model 0.weight; optimizer 0.weight exp_avg; rngs torch; 1 more'
    """
    words = [
        " ".join(part for part in name.removeprefix("state/").split("/") if part not in ("", "state")) for name in names
    ]
    more = [f"{len(words) - _MOST} more"] * (len(words) > _MOST)
    return "; ".join([*words[:_MOST], *more])
