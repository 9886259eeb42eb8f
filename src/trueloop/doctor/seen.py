"""What the trace knows of the script's objects: its models and their passes, its optimizers, its loaders."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from trueloop.doctor.course import Course
from trueloop.doctor.findings import Place

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.utils.data import DataLoader

    from trueloop.doctor.rows import Rows

Phase = Literal["open", "training", "unused"]

Data = Literal["held-out", "training", "unknown"]
"""What an unused pass was over: samples that the model does not train on, those that it does, or it cannot be told."""


class Accumulation(NamedTuple):
    """One backward reached an optimizer's watched parameters."""

    backward: int
    """The backward's number in the run."""
    clean: bool
    """All watched gradients that it reached were None or zero before it."""
    place: Place | None


@dataclass(eq=False)
class ModelSeen:
    """A module that was called as a root: that no other module's forward called."""

    number: int
    ref: weakref.ref[nn.Module]
    kind: str
    """Its class's name."""
    layers: list[tuple[str, nn.Module]] = field(default_factory=list)
    """Its layers that behave otherwise in eval mode, by name: dropout with p > 0, batch statistics."""
    passes: int = 0
    trained: int = 0
    """How many passes a backward went through."""
    unused: int = 0
    """How many passes none went through."""
    segments: int = 0
    """Backwards that reached it."""
    segments_with_unused: int = 0
    """Backwards before which it had also made passes that none went through."""
    fed: bool = False
    """Its input is what other trained layers computed (a head, a layer of ``model.forward(x)``): no data."""
    first_step: int | None = None
    """The run's step when an optimizer first stepped on its passes; None before that."""
    last_step: int = -1
    """The run's step when one last did."""
    steps: int = 0
    """Optimizer steps taken on its passes."""
    loaders: list[LoaderSeen] = field(default_factory=list)
    """The last few loaders whose batches trained it."""
    trained_samples: dict[int, int] = field(default_factory=dict)
    """Fingerprint of a sample that it was stepped on -> the step at which it last was."""
    novelty: float = 1.0
    """The share of samples it had not met before, in the last training pass whose samples were taken."""
    early: int = 0
    """Unused passes before its first step: what is made from the start on is mostly an ingredient of the training."""
    evaluated_samples: set[int] = field(default_factory=set)
    """Fingerprints of the samples of its unused passes after its first step."""
    rounds: int = 0
    """Steps at which it made unused passes, after its first one."""
    round_step: int = -1
    """The last of them."""
    round_steps: dict[tuple[int | None, str], int] = field(default_factory=dict)
    """The last such step by loader and kind of data."""

    @property
    def module(self) -> nn.Module | None:
        """The module; None after it died."""
        return self.ref()


@dataclass(eq=False)
class Pass:
    """One call of a root module."""

    number: int
    model: ModelSeen
    training: bool
    """``module.training`` of the root."""
    grad: bool
    """Gradients were enabled when it began."""
    needs_grad: bool
    """Its output requires a gradient."""
    step: int
    """Optimizer steps taken before it."""
    epoch: int | None
    place: Place | None
    moving: tuple[str, ...]
    """Names of layers with two modes that were in train mode when it began."""
    resting: tuple[str, ...]
    """Names of those that were in eval mode."""
    close: bool
    """It was looked at closely."""
    loader: LoaderSeen | None = None
    """The loader whose last batch is its input."""
    owned: bool = False
    """Its input is that batch itself, or a view of it; otherwise the two are as long as each other."""
    samples: tuple[int, ...] = ()
    """Fingerprints of the first input's samples; empty where they were not taken."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Shapes of its tensor inputs."""
    phase: Phase = "open"
    data: Data = "unknown"
    """What it was over; told of unused passes when they are settled."""
    waited: int = 0
    """Backwards that went by since without reaching it."""
    losses: list[float] = field(default_factory=list)
    """Values of the loss functions called after it, before the next pass (read where it is looked at closely)."""


@dataclass(eq=False)
class Round:
    """Unused passes of a model over one kind of data between two steps: an evaluation, or an ingredient of training."""

    model: ModelSeen
    step: int
    epoch: int | None
    loader: LoaderSeen | None
    data: Data
    passes: list[Pass] = field(default_factory=list)
    """The first of them."""
    count: int = 0
    """How many there were."""
    again: bool = False
    """Most of its samples were in an earlier round as well."""
    last: bool = False
    """No step came after it."""
    evaluates: bool = False
    """It was an evaluation, as far as can be told."""

    @property
    def loss(self) -> float | None:
        """The mean of the losses that were taken of its passes; None if there were none."""
        losses = [one.losses[-1] for one in self.passes if one.losses]
        return sum(losses) / len(losses) if losses else None


@dataclass(eq=False)
class OptimizerSeen:
    """An optimizer."""

    number: int
    ref: weakref.ref[Optimizer]
    kind: str
    place: Place | None = None
    """Where it was made; None if that was before we listened."""
    watched: list[Tensor] = field(default_factory=list)
    """A few of its parameters whose gradients are looked at around each backward."""
    accumulated: list[Accumulation] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    """The training passes whose gradients it holds: reached since its last step, and not cleared since."""
    reach: dict[int, set[int]] = field(default_factory=dict)
    """A pass's number -> the ``id`` of the watched parameters whose gradients it has part in."""
    steps: int = 0
    models: tuple[ModelSeen, ...] = ()
    """Those whose passes it stepped on last."""
    course: Course = field(default_factory=Course)
    """How the numbers went: a row for each step that was looked at closely."""
    last_step_place: Place | None = None
    zeroed_place: Place | None = None

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer; None after it died."""
        return self.ref()

    def groups(self) -> list[dict[str, Any]]:
        """Its parameter groups now; none after it died."""
        optimizer = self.ref()
        return [] if optimizer is None else optimizer.param_groups

    def parameters(self) -> list[Tensor]:
        """What it holds now."""
        return [parameter for group in self.groups() for parameter in group["params"]]


@dataclass(eq=False)
class LoaderSeen:
    """A DataLoader."""

    number: int
    ref: weakref.ref[DataLoader[Any]]
    place: Place | None = None
    iterations: int = 0
    fetched: int = 0
    """Batches, over all iterations."""
    trains: bool = False
    """A backward went through a pass over one of its batches, and an optimizer stepped on it."""
    trained: list[int] = field(default_factory=list)
    """Which of its iterations (0 for the first) an optimizer stepped in."""
    rows: Rows | None = None
    """Which rows of which dataset it gives."""

    @property
    def loader(self) -> DataLoader[Any] | None:
        """The loader; None after it died."""
        return self.ref()

    @property
    def dataset(self) -> Any:
        """Its dataset; None after the loader died."""
        loader = self.ref()
        return None if loader is None else loader.dataset
