"""The vocabulary of a trace: what was seen to happen, in the past tense, each with the user's line.

Tensors in a fact are the script's own, live: a rule reads them while it is told the fact and keeps numbers, never
the tensor (that would change how long the script's memory lives). Rules are called without gradients, unheard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from trueloop.doctor.findings import Place

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from trueloop.doctor.graph import Graph
    from trueloop.doctor.seen import Accumulation, LoaderSeen, OptimizerSeen, Pass, Round
    from trueloop.doctor.vitals import Vitals


class LoaderMade(NamedTuple):
    """A DataLoader was built."""

    loader: LoaderSeen
    place: Place | None


class LoaderBegun(NamedTuple):
    """``iter(loader)`` was called: an epoch over it begins, unless only one batch is taken."""

    loader: LoaderSeen
    place: Place | None


class Fetched(NamedTuple):
    """A loader gave a batch."""

    loader: LoaderSeen
    batch: Any
    """As the script gets it: tensors, or lists, tuples and dicts of them."""
    position: int
    """0 for the first of this iteration."""
    seconds: float
    """How long the loop waited for it."""
    place: Place | None


class LoaderEnded(NamedTuple):
    """A loader's iteration came to its end (``StopIteration``), after ``batches`` batches."""

    loader: LoaderSeen
    batches: int


class SplitMade(NamedTuple):
    """``torch.utils.data.random_split`` cut a dataset into parts."""

    dataset: Any
    parts: Sequence[Any]
    place: Place | None


class Seeded(NamedTuple):
    """``torch.manual_seed`` was called."""

    seed: int
    place: Place | None


class Permuted(NamedTuple):
    """An order was drawn: by ``torch.randperm`` or ``numpy.random.permutation`` of the user's, or in a sampler."""

    order: int
    """A fingerprint of the order."""
    length: int
    by_sampler: bool
    place: Place | None


class Transformed(NamedTuple):
    """A preprocessing step of scikit-learn transformed rows with statistics that it was fitted on."""

    kind: str
    """Its class: ``StandardScaler`` …"""
    fitted_rows: frozenset[int]
    """Fingerprints of the transformed rows that were among those it was fitted on."""
    columns: int
    """Of what came out."""
    fitted_at: Place | None
    place: Place | None


class Synchronised(NamedTuple):
    """The program waited for an accelerator: a tensor's value was read (``item()``, ``tolist()``, ``cpu()``)."""

    kind: str
    """The method."""
    seconds: float
    place: Place | None


class ModuleCalled(NamedTuple):
    """A module inside a root's pass returned. Told on passes that are looked at closely (``Pass.close``)."""

    module: nn.Module
    name: str
    """As in ``named_modules`` of the root; its class where the root does not hold it (a plain list)."""
    inputs: tuple[Any, ...]
    """Positional arguments, then the values of keyword ones."""
    output: Any
    of: Pass


class Called(NamedTuple):
    """A root module (one that no other module's forward called) returned."""

    of: Pass
    inputs: tuple[Any, ...]
    """Positional arguments, then the values of keyword ones."""
    output: Any
    keywords: tuple[str, ...] = ()
    """The names of the keyword ones: of the last inputs."""


class ForwardFailed(NamedTuple):
    """A module's forward raised; the innermost is told first."""

    module: nn.Module
    name: str
    inputs: tuple[Any, ...]
    of: Pass | None
    error: BaseException | None


class LossCalled(NamedTuple):
    """One of torch's loss functions was called: the function, or the module that calls it."""

    kind: str
    """The function's name in ``torch.nn.functional``: ``cross_entropy``, ``mse_loss`` …"""
    input: Tensor
    """The first argument, as it was given."""
    target: Tensor
    """The second."""
    options: Mapping[str, Any]
    """All other arguments by name: ``weight``, ``reduction``, ``ignore_index`` …"""
    output: Tensor | None
    """None if it raised."""
    error: BaseException | None
    of: Pass | None
    """The pass that came before it."""
    place: Place | None


class BackwardBegun(NamedTuple):
    """``backward`` is about to run; the graph is whole."""

    losses: tuple[Tensor, ...]
    """What it is called on (nearly always one scalar)."""
    values: tuple[float, ...] | None
    """Their values, unscaled by a GradScaler; None unless all are scalars."""
    graph: Graph
    """The loss's graph; walked when first asked."""
    retain_graph: bool
    create_graph: bool
    scaled: bool
    """The loss came out of a GradScaler's ``scale``."""
    passes: tuple[Pass, ...]
    """The open passes, oldest first; whether this backward reaches them is known when it has ended."""
    number: int
    """0 for the run's first."""
    place: Place | None


class BackwardEnded(NamedTuple):
    """``backward`` returned (or raised: ``error``); gradients have been accumulated."""

    begun: BackwardBegun
    reached: tuple[Pass, ...]
    """The passes through whose output it went."""
    error: BaseException | None


class GradientsTaken(NamedTuple):
    """``torch.autograd.grad`` was called: saliency, penalties, meta-learning."""

    outputs: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    create_graph: bool
    place: Place | None


class Settled(NamedTuple):
    """It is known what a pass was for."""

    of: Pass
    """``of.phase`` is ``training`` (a backward went through it) or ``unused`` (none did before the next one ended, or
    before the script did). Evaluation is ``unused`` in a model that trains: see ``Trace.evaluates``."""


class Evaluated(NamedTuple):
    """Unused passes of a model between two steps are all settled. Ask ``of.evaluates`` whether it was an evaluation."""

    of: Round


class OptimizerMade(NamedTuple):
    """An optimizer was built."""

    optimizer: OptimizerSeen
    place: Place | None


class Zeroed(NamedTuple):
    """``zero_grad`` of an optimizer or a module was called (other ways of clearing show in the gradients alone)."""

    by: Optimizer | nn.Module
    place: Place | None


class Clipped(NamedTuple):
    """``clip_grad_norm_`` or ``clip_grad_value_`` was called."""

    kind: str
    """``norm`` or ``value``."""
    parameters: tuple[Tensor, ...]
    limit: float
    norm: Tensor | None
    """The norm before clipping."""
    had_gradients: bool
    """Whether any of the parameters had a gradient."""
    place: Place | None


class Stepping(NamedTuple):
    """``optimizer.step`` is about to run: gradients are as it will use them."""

    optimizer: OptimizerSeen
    accumulated: tuple[Accumulation, ...]
    """The backwards that reached its watched parameters since its last step, in order."""
    has_closure: bool
    by_scaler: bool
    place: Place | None


class Stepped(NamedTuple):
    """``optimizer.step`` returned."""

    optimizer: OptimizerSeen
    accumulated: tuple[Accumulation, ...]
    passes: tuple[Pass, ...]
    """The training passes whose gradients it used (those that backwards reached since its last step)."""
    vitals: Vitals | None
    """Norms of weights, gradients and updates; None on steps that are not looked at closely."""
    by_scaler: bool
    place: Place | None


class Scaled(NamedTuple):
    """A GradScaler scaled a loss."""

    scaler: Any
    place: Place | None


class Unscaled(NamedTuple):
    """A GradScaler's ``unscale_`` was called for an optimizer."""

    scaler: Any
    optimizer: Optimizer
    place: Place | None


class ScalerStepped(NamedTuple):
    """A GradScaler's ``step`` returned; it may have left the optimizer's step out."""

    scaler: Any
    optimizer: Optimizer
    stepped: bool
    place: Place | None


class ScalerUpdated(NamedTuple):
    """A GradScaler's ``update`` was called."""

    scaler: Any
    place: Place | None


class SchedulerMade(NamedTuple):
    """A learning-rate scheduler was built."""

    scheduler: Any
    optimizer: Optimizer
    place: Place | None


class Scheduled(NamedTuple):
    """A scheduler's ``step`` returned (not the one that its constructor makes)."""

    scheduler: Any
    optimizer: Optimizer | None
    arguments: tuple[Any, ...]
    """What it was given: the metric of a plateau schedule, an epoch number."""
    place: Place | None


class ModeSet(NamedTuple):
    """``module.train(mode)`` (or ``eval()``, which calls it) was called, not from within another such call."""

    module: nn.Module
    mode: bool
    place: Place | None


class Chosen(NamedTuple):
    """``argmax``, or ``max`` with indices, over a tensor of two dimensions."""

    input: Tensor
    dim: int | None
    """0 or 1; None over all its values."""
    place: Place | None


class Compared(NamedTuple):
    """A tensor of one dimension and one of two were compared (``==``, ``!=``), which broadcasts."""

    left: Tensor
    right: Tensor
    place: Place | None


class LengthAsked(NamedTuple):
    """A line of the user's asked a loader for its length, in batches."""

    loader: LoaderSeen
    batches: int
    frame: FrameType
    """The user's frame, to read what its variables hold; not to be kept."""
    place: Place | None


class DroppedOut(NamedTuple):
    """Dropout was at work in a pass that was made in eval mode."""

    kind: str
    """The function: ``dropout``, ``scaled_dot_product_attention`` …"""
    module: nn.Module
    """The innermost module that runs."""
    asked: bool
    """``training`` was given by the caller (not left to its default)."""
    of: Pass
    place: Place | None


class StateTaken(NamedTuple):
    """``module.state_dict()`` was called. Its tensors are the module's own, not copies."""

    module: nn.Module
    state: Mapping[str, Any]
    place: Place | None


class StateLoaded(NamedTuple):
    """``module.load_state_dict(state)`` is about to run."""

    module: nn.Module
    state: Mapping[str, Any]
    place: Place | None


class StateSaved(NamedTuple):
    """``torch.save`` is about to write this."""

    content: Any
    place: Place | None


class Paused(NamedTuple):
    """Listening stops for some steps (in our trainer): what comes next does not follow on what came before."""

    step: int


class Ended(NamedTuple):
    """The script ended, or listening did."""

    error: BaseException | None
    """What ended it, if it did not end by itself."""


Fact = (
    LoaderMade
    | LoaderBegun
    | Fetched
    | LoaderEnded
    | SplitMade
    | Seeded
    | Permuted
    | Transformed
    | Synchronised
    | ModuleCalled
    | Called
    | ForwardFailed
    | LossCalled
    | BackwardBegun
    | BackwardEnded
    | GradientsTaken
    | Settled
    | Evaluated
    | OptimizerMade
    | Zeroed
    | Clipped
    | Stepping
    | Stepped
    | Scaled
    | Unscaled
    | ScalerStepped
    | ScalerUpdated
    | SchedulerMade
    | Scheduled
    | ModeSet
    | DroppedOut
    | Chosen
    | Compared
    | LengthAsked
    | StateTaken
    | StateLoaded
    | StateSaved
    | Paused
    | Ended
)

REACTIONS: dict[type, str] = {
    LoaderMade: "loader_made",
    LoaderBegun: "loader_begun",
    Fetched: "fetched",
    LoaderEnded: "loader_ended",
    SplitMade: "split_made",
    Seeded: "seeded",
    Permuted: "permuted",
    Transformed: "transformed",
    Synchronised: "synchronised",
    ModuleCalled: "module_called",
    Called: "called",
    ForwardFailed: "forward_failed",
    LossCalled: "loss_called",
    BackwardBegun: "backward_begun",
    BackwardEnded: "backward_ended",
    GradientsTaken: "gradients_taken",
    Settled: "settled",
    Evaluated: "evaluated",
    OptimizerMade: "optimizer_made",
    Zeroed: "zeroed",
    Clipped: "clipped",
    Stepping: "stepping",
    Stepped: "stepped",
    Scaled: "scaled",
    Unscaled: "unscaled",
    ScalerStepped: "scaler_stepped",
    ScalerUpdated: "scaler_updated",
    SchedulerMade: "scheduler_made",
    Scheduled: "scheduled",
    ModeSet: "mode_set",
    DroppedOut: "dropped_out",
    StateTaken: "state_taken",
    StateLoaded: "state_loaded",
    StateSaved: "state_saved",
    Chosen: "chosen",
    Compared: "compared",
    LengthAsked: "length_asked",
    Paused: "paused",
    Ended: "ended",
}
"""A rule reacts to a fact by a method of this name."""

TRAINING = (
    BackwardBegun,
    BackwardEnded,
    Zeroed,
    Clipped,
    Stepping,
    Stepped,
    Scaled,
    Unscaled,
    ScalerStepped,
    ScalerUpdated,
)
"""Not told of a step that was heard in part only."""
