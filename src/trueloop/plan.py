"""What is going to happen, said before the first step: nothing is decided behind the user's back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Group:
    """A parameter group: what trains at which rate and decay."""

    name: str
    tensors: int
    weights: int
    """Numbers in those tensors."""
    lr: float
    """The group's own rate, which the schedule multiplies."""
    weight_decay: float


@dataclass(frozen=True)
class Rate:
    """The course of the learning rate of the first group."""

    schedule: str
    start: float | None = None
    """None where only torch's scheduler knows."""
    peak: float | None = None
    peak_step: int | None = None
    end: float | None = None


@dataclass(frozen=True)
class Plan:
    """The plan of a run. ``print(plan)`` shows it; every field can be asked.

    Example:
        >>> plan = Plan(steps=10, epochs=2, steps_per_epoch=5, samples_per_step=4, samples=18, data="in memory",
        ...             ritual=("forward", "loss", "zero", "backward", "SGD"), rate=Rate("constant", 0.1, 0.1, 0, 0.1),
        ...             groups=(Group("all", 2, 11, 0.1, 0.0),), frozen=0, device="cpu: asked for", precision="fp32",
        ...             memory="as the model is", evaluates="never")
        >>> print(plan)
        plan
          steps      10 optimizer steps: 2 epochs of 5, 4 samples each (an epoch's last one has 2)
          data       in memory
          each step  forward → loss → zero → backward → SGD
          rate       0.1 throughout (constant)
          trains     11 weights in 2 tensors (all) at 0.1
          device     cpu: asked for
          precision  fp32
          memory     as the model is
          evaluates  never
    """

    steps: int | None
    """Optimizer steps in all; None if the data does not say how long it is."""
    epochs: int | None
    steps_per_epoch: int | None
    samples_per_step: int | None
    samples: int | None
    """Training samples in an epoch."""
    data: str
    """How data is read, and why so."""
    ritual: tuple[str, ...]
    """The parts of one step, in their order."""
    rate: Rate
    groups: tuple[Group, ...]
    frozen: int
    """Weights (numbers) of the model that no optimizer moves."""
    device: str
    precision: str
    memory: str
    evaluates: str
    saves: str | None = None
    doctor: str | None = None
    """To what of the run the doctor listens; None if to nothing."""
    processes: tuple[str, ...] = ()
    """How several processes share the run, a line each; none where there is one."""
    compiles: str | None = None
    average: str | None = None
    notes: tuple[str, ...] = field(default=())
    """What does not look right: a schedule of another length, parameters in no optimizer."""

    def lines(self) -> list[str]:
        """The plan as plain text, a line each."""
        rows = [
            ("steps", self._steps()),
            ("data", self.data),
            ("each step", " → ".join(self.ritual)),
            ("rate", describe_rate(self.rate)),
            *(("trains", describe_group(group)) for group in self.groups),
            ("frozen", f"{self.frozen:,} weights are in no optimizer" if self.frozen else None),
            ("device", self.device),
            ("precision", self.precision),
            ("memory", self.memory),
            *(("processes", line) for line in self.processes),
            ("compiles", self.compiles),
            ("average", self.average),
            ("evaluates", self.evaluates),
            ("saves", self.saves),
            ("doctor", self.doctor),
            *(("note", note) for note in self.notes),
        ]
        return ["plan", *(f"  {name:<9}  {text}" for name, text in rows if text)]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _steps(self) -> str:
        steps = "an unknown number of" if self.steps is None else f"{self.steps:,}"
        text = f"{steps} optimizer step{'' if self.steps == 1 else 's'}"
        if self.epochs is not None:
            text += f": {_counted(self.epochs, 'epoch')}"
            text += f" of {self.steps_per_epoch:,}" if self.steps_per_epoch is not None else ""
        if self.samples_per_step is not None:
            text += f", {_counted(self.samples_per_step, 'sample')} each"
            tail = (self.samples or 0) % self.samples_per_step
            if (
                self.samples is not None
                and self.steps_per_epoch is not None
                and tail
                and (
                    self.steps_per_epoch * self.samples_per_step > self.samples  # not where the tail is dropped
                )
            ):
                text += f" (an epoch's last one has {tail})"
        return text


def describe_rate(rate: Rate) -> str:
    """One line: where the rate starts, peaks and ends.

    Example:
        >>> describe_rate(Rate("warmup_cosine", 1e-5, 1e-3, 99, 0.0))
        'starts at 1e-05, peaks at 0.001 in step 100, ends at 0 (warmup_cosine)'
    """
    if rate.start is None or rate.peak is None or rate.peak_step is None or rate.end is None:
        return f"by {rate.schedule}"
    if rate.start == rate.peak == rate.end:
        return f"{rate.peak:.4g} throughout ({rate.schedule})"
    if rate.start == rate.peak:
        return f"starts at {rate.start:.4g}, its peak, ends at {rate.end:.4g} ({rate.schedule})"
    return (
        f"starts at {rate.start:.4g}, peaks at {rate.peak:.4g} in step {rate.peak_step + 1}, "
        f"ends at {rate.end:.4g} ({rate.schedule})"
    )


def describe_group(group: Group) -> str:
    """One line: how many weights train at which rate and decay."""
    decay = f", weight decay {group.weight_decay:g}" if group.weight_decay else ""
    return f"{group.weights:,} weights in {_counted(group.tensors, 'tensor')} ({group.name}) at {group.lr:g}{decay}"


def course(schedule: str, multipliers: Sequence[tuple[int, float]], base: float) -> Rate:
    """The course of a rate from its multipliers at some steps, in order.

    Example:
        >>> course("linear", [(0, 1.0), (1, 0.5), (2, 0.0)], base=0.1)
        Rate(schedule='linear', start=0.1, peak=0.1, peak_step=0, end=0.0)
    """
    peak_step, peak = max(multipliers, key=lambda pair: pair[1])
    return Rate(schedule, base * multipliers[0][1], base * peak, peak_step, base * multipliers[-1][1])


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
