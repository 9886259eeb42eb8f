"""What the trace knows of the script's objects: its models and their passes, its optimizers, its loaders."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from trueloop.doctor.findings import Place

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.utils.data import DataLoader

Phase = Literal["open", "training", "unused"]


class Accumulation(NamedTuple):
    """One backward reached an optimizer's watched parameters."""

    backward: int
    """The backward's number in the run."""
    clean: bool | None
    """All watched gradients that it reached were None or zero before it; None where that was not read."""
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
    samples: tuple[int, ...] = ()
    """Fingerprints of the first input's samples; empty where they were not taken."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Shapes of its tensor inputs."""
    phase: Phase = "open"
    waited: int = 0
    """Backwards that went by since without reaching it."""
    losses: list[float] = field(default_factory=list)
    """Values of the loss functions called after it, before the next pass (read where it is looked at closely)."""


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
    """The training passes whose backwards reached it since its last step."""
    steps: int = 0
    last_step_place: Place | None = None
    zeroed_place: Place | None = None

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer; None after it died."""
        return self.ref()

    def parameters(self) -> list[Tensor]:
        """What it holds now."""
        optimizer = self.ref()
        return [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]


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
    orders: list[list[int]] = field(default_factory=list)
    """For each of its first iterations: a fingerprint a batch, in order."""

    @property
    def loader(self) -> DataLoader[Any] | None:
        """The loader; None after it died."""
        return self.ref()

    @property
    def dataset(self) -> Any:
        """Its dataset; None after the loader died."""
        loader = self.ref()
        return None if loader is None else loader.dataset
