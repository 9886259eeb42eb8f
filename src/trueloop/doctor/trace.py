"""The trace: what is known of a script that trains, and the way of each fact to the rules.

Probes tell facts; the trace keeps the shared knowledge (models, passes, optimizers, loaders, which pass was for what)
up to date first, and then lets the rules react. While rules look, gradients are off and the probes are deaf; no random
number is drawn and no mode is changed, so the training does not notice.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torch.utils.weak import WeakIdKeyDictionary

from trueloop.doctor import facts
from trueloop.doctor.findings import Finding
from trueloop.doctor.lines import Lines
from trueloop.doctor.rows import rows_of
from trueloop.doctor.seen import LoaderSeen, ModelSeen, OptimizerSeen, Pass, Round

if TYPE_CHECKING:
    from trueloop.doctor.rule import Rule

CLOSE_STEPS = 150
"""So many first steps are heard; a guess: small scripts have 60-150 steps in all."""
CLOSE_EVERY = 30
"""After them, one of so many, in the beginning."""
RARER = 50
"""One of a hundred is heard after a hundred steps times this: it takes 1 ms, which a tiny step would notice."""
ROUNDS = 2
"""So many in a row for each optimizer: a GAN's two belong together, and an order is seen from one step to the next."""
CLOSE_UNUSED = 400
"""So many first passes without gradients (validation) are looked at closely as well."""
SAMPLES_KEPT = 300_000
"""Fingerprints kept on each side; 8 bytes each and a set's overhead."""


Reactions = dict[type, list[tuple["Rule", Callable[[Any], Any]]]]
"""Kind of fact -> the rules that react to it, with the method that does."""


class Batch:
    """What a loader gave last: enough to know it again when a model is called on it.

    Example:
        >>> x = torch.zeros(4, 2)
        >>> batch = Batch(LoaderSeen(0, None), [x])
        >>> batch.holds([x]), batch.holds([x.clone()]), batch.holds([torch.zeros(5)])
        (True, True, False)
        >>> batch.owns([x.view(8)]), batch.owns([x.clone()])
        (True, False)
    """

    def __init__(self, loader: LoaderSeen, tensors: Sequence[Tensor]) -> None:
        self.loader = loader
        self._refs = [weakref.ref(tensor) for tensor in tensors]
        self._lengths = {tensor.shape[0] for tensor in tensors if tensor.dim()}

    @property
    def tensors(self) -> list[Tensor]:
        """Its tensors, as long as they live."""
        return [tensor for ref in self._refs if (tensor := ref()) is not None]

    def owns(self, tensors: Sequence[Tensor]) -> bool:
        """Whether one of these is of this batch itself, or a view of such."""
        own = self.tensors
        return any(tensor is one or tensor._base is one for tensor in tensors for one in own)

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are of this batch: the same objects, or as many samples (moved to a device, augmented)."""
        return self.owns(tensors) or any(tensor.dim() and tensor.shape[0] in self._lengths for tensor in tensors)


class Trace:
    """What is known of a run, and the rules that listen.

    Args:
        rules: makes the rules that are to listen, given the trace.
        found: called with each finding as soon as it is made.
        close_steps: so many first optimizer steps are heard.
        close_every: after them, one of so many is, a few in a row; the longer the run, the rarer (up to a fifth).

    Example:
        >>> trace = Trace()
        >>> trace.step, trace.epoch, trace.findings
        (0, None, [])
    """

    def __init__(
        self,
        rules: Sequence[type[Rule]] = (),
        *,
        found: Callable[[Finding], None] | None = None,
        close_steps: int = CLOSE_STEPS,
        close_every: int = CLOSE_EVERY,
    ) -> None:
        self.deaf = False
        """Probes say nothing while this is set."""
        self.thread = threading.get_ident()
        self.process = os.getpid()
        self.started = time.monotonic()
        self.close_steps, self.close_every = close_steps, close_every
        self._until, self._from, self._next = close_steps, 0, 0
        self.step = 0
        """Optimizer steps taken so far, of all optimizers."""
        self.dozes = False
        """Steps are only counted just now."""
        self.seldom = False
        """So few steps are heard (in our trainer) that a rule which looks now and then looks at each of them."""
        self.partial = False
        """It woke in the middle of the step that runs just now."""
        self.heard = 0
        """Steps that were heard."""
        self.costly: list[tuple[Callable[[], None], Callable[[], None]]] = []
        """What puts in, and what takes out, probes that cost time by being there."""
        self.unheard_batch: tuple[LoaderSeen, Any] | None = None
        """What a loader gave last while the trace dozed."""
        self.epoch: int | None = None
        """The epoch (0-based) of the training loader; None while that cannot be told."""
        self.backwards = 0
        self.compiled = False
        """``torch.compile`` is in use: what happens inside compiled code is not seen."""
        self.models: list[ModelSeen] = []
        self.optimizers: list[OptimizerSeen] = []
        self.loaders: list[LoaderSeen] = []
        self.passes = 0
        self.open: list[Pass] = []
        """The passes of which it is not known yet what they were for, oldest first."""
        self.reached: dict[int, Pass] = {}
        """The passes that the running backward has gone through so far, by number."""
        self.rounds: dict[tuple[int, int, int | None, str], Round] = {}
        """Unused passes that are being gathered, until the model's next step."""
        self.turns = 0
        """How often an optimizer stepped after another one had, each on backwards of its own."""
        self.turn: tuple[int, int] | None = None
        """The optimizer that stepped last, and the number of the last backward that it stepped on."""
        self.running: list[tuple[nn.Module, Pass | None]] = []
        """The modules whose forward runs just now, the root's first, and whose pass it is (None: not a model's)."""
        self.last_pass: Pass | None = None
        self.last_batch: Batch | None = None
        """What a loader gave last."""
        self.training_samples: dict[int, int] = {}
        """Fingerprint of a sample that an optimizer stepped on -> the step at which one first did."""
        self.unused_samples: dict[int, int] = {}
        """Fingerprint of a sample that passed a model without training it -> the step at which it first did."""
        self.names: Any = WeakIdKeyDictionary()
        self.answers: dict[Any, Any] = {}
        """What one rule found out at some cost and another may want to know; by the question."""
        self.findings: list[Finding] = []
        self.every_finding: list[Finding] = []  # at the end: also those that another one explains
        self.silenced: list[str] = []
        """Rules that raised, with what they raised: a defect of ours, which must not become the script's."""
        self.notes: list[str] = []
        """What could not be seen, in sentences."""
        self.ended = False
        self.error: BaseException | None = None
        """What ended the script, if it did not end by itself."""
        self.lines = Lines(0)
        """Whether torch keeps the lines of operations."""
        self.save_to: Path | None = None
        """The folder for what is kept beside the run (the batch that broke it); None: nothing is."""
        self.scaled: dict[int, float] = {}
        """``id`` of the loss that a GradScaler made last -> its scale."""
        self.by_scaler: Any = None
        """The GradScaler whose ``step`` is running."""
        self.each_step: Callable[[], None] | None = None
        """Called after each optimizer step, heard or not; it may end the script by a BaseException."""
        self._found = found
        self._known: Any = WeakIdKeyDictionary()  # the script's models, optimizers and loaders -> what is known of each
        self.rules = [rule(self) for rule in rules]
        self._reactions: Reactions = {
            fact: [(rule, getattr(rule, method)) for rule in self.rules if hasattr(rule, method)]
            for fact, method in facts.REACTIONS.items()
        }

    def wants(self, kind: type) -> bool:
        """Whether any rule reacts to this kind of fact; a probe leaves out work that nobody asks for."""
        return bool(self._reactions[kind])

    # Between the steps that are heard

    def rest(self) -> None:
        """A step was taken: have enough been heard for now? Then the trace dozes, and steps are only counted."""
        if self.step < self._until:
            return
        rare = max(self.close_every, min(5 * self.close_every, self.step // RARER))
        self._from, self._next = self.step, self.step + (rare - 1) * self._window
        self.dozes = True
        self.running.clear()
        self.open.clear()
        self.last_pass = self.last_batch = None
        for _, take_out in self.costly:
            take_out()

    def follow(self, thread: int) -> None:
        """The first optimizer step is taken in another thread: from here on that one is listened to."""
        self.thread, self.partial = thread, True

    def counted(self, optimizer: Optimizer) -> None:
        """An optimizer stepped while the trace dozed."""
        self.step += 1
        seen = self.optimizer_of(optimizer)
        seen.steps += 1
        for model in seen.models:
            model.steps += 1
            model.last_step = self.step
        if self.step >= self._next:
            self.wake()
        if self.each_step is not None:
            self.each_step()

    def stir(self) -> None:
        """Something begins that should be heard (an epoch, a validation), unless it comes too often for that."""
        if not self.dozes:
            return
        rare = 1 + (self._next - self._from) // self._window
        if self.heard - self.close_steps < self._window + 2 * (self.step - self.close_steps) // rare:
            self.wake()

    def wake(self) -> None:
        """Listens again. The step that runs just now is heard in part only, so its training is not judged."""
        self.dozes, self.partial = False, True
        self._until = self.step + self._window
        for put_in, _ in self.costly:
            put_in()

    @property
    def _window(self) -> int:
        return 1 + ROUNDS * max(1, len(self.optimizers))

    # Facts

    def tell(self, fact: facts.Fact) -> None:
        """Hands a fact to the rules that react to it. A rule that raises is put out and noted; the script goes on."""
        listeners = self._reactions[type(fact)]
        if not listeners or (self.partial and type(fact) in facts.TRAINING):
            return
        was_deaf, self.deaf = self.deaf, True
        grad = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            for rule, react in tuple(listeners):
                try:
                    found = react(fact)
                    if found is not None:
                        self._keep(found)
                except Exception as error:
                    self._silence(rule, error)
        finally:
            torch._C._set_grad_enabled(grad)
            self.deaf = was_deaf

    def broke(self, error: Exception) -> None:
        """A probe raised: a defect of ours, which must not become the script's. Nothing is listened to any more."""
        if os.environ.get("TRUELOOP_TRACEBACK") == "1":
            traceback.print_exc()
        self.deaf = True
        self.note(
            f"the doctor stopped listening at step {self.step}, by a defect of its own: {type(error).__name__}: {error}"
        )

    def guarded(self, probe: Callable[..., None]) -> Callable[..., None]:
        """A hook that never raises."""

        def hook(*args: Any) -> None:
            try:
                probe(*args)
            except Exception as error:
                self.broke(error)

        return hook

    def note(self, sentence: str) -> None:
        """Keeps what could not be seen, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    # What the script's objects are, by the objects themselves

    def model_of(self, module: nn.Module) -> ModelSeen:
        """What is known of a root module; it is met for the first time if need be."""
        seen = self.known(module)
        if seen is None:
            seen = ModelSeen(len(self.models), weakref.ref(module), type(module).__name__)
            self._known[module] = seen
            self.models.append(seen)
            self.name_parameters(module)
        return seen

    def known(self, module: nn.Module) -> ModelSeen | None:
        """What is known of a root module; None if it was never met."""
        seen: ModelSeen | None = self._known.get(module)
        return seen

    def optimizer_of(self, optimizer: Optimizer) -> OptimizerSeen:
        """What is known of an optimizer; one that was made before we listened is met at its first step."""
        seen: OptimizerSeen | None = self._known.get(optimizer)
        if seen is None:
            seen = OptimizerSeen(len(self.optimizers), weakref.ref(optimizer), type(optimizer).__name__)
            self._known[optimizer] = seen
            self.optimizers.append(seen)
        return seen

    def loader_of(self, loader: DataLoader[Any]) -> LoaderSeen:
        """What is known of a loader."""
        seen: LoaderSeen | None = self._known.get(loader)
        if seen is None:
            seen = LoaderSeen(len(self.loaders), weakref.ref(loader), rows=rows_of(loader))
            self._known[loader] = seen
            self.loaders.append(seen)
        return seen

    def name_parameters(self, module: nn.Module) -> None:
        """Learns the names of a root's parameters (again, where some were replaced)."""
        for name, parameter in module.named_parameters():
            if parameter not in self.names:
                self.names[parameter] = name

    def name_of(self, parameter: Tensor) -> str:
        """A parameter's name in its model; its shape where no model that was called holds it."""
        return str(self.names.get(parameter) or f"a parameter of shape {tuple(parameter.shape)}")

    # What passes were for

    def trains(self, model: ModelSeen) -> bool:
        """Whether backwards go through the model, and an optimizer holds its parameters."""
        return model.trained > 0

    @property
    def alternates(self) -> bool:
        """Whether optimizers take turns, each on losses of its own: a GAN, an actor and its critic."""
        return self.turns >= 4 and 4 * self.turns >= self.heard

    def evaluates(self, settled: Pass) -> bool:
        """Whether an unused pass was an evaluation, as far as is known when it is settled.

        Its model has been stepped on before. What is done at every step may be an ingredient of the training (a
        teacher, pseudo labels, a rollout, a GAN's fakes): it must then be over the same held-out samples each time, and
        not have been there before the first step. ``Evaluated`` is told later and knows more.
        """
        model = settled.model
        if settled.phase != "unused" or model.first_step is None or settled.step <= model.first_step:
            return False
        each_step = 2 * model.rounds > model.steps
        if settled.data == "held-out" and settled.loader is not None and not settled.loader.trains:
            return not (each_step and model.early)
        if self.alternates:
            return False
        if each_step:
            known = sum(sample in model.evaluated_samples for sample in settled.samples)
            return settled.data == "held-out" and not model.early and 0 < len(settled.samples) <= 2 * known
        return True

    # Findings

    def _keep(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            key = (finding.name, finding.place, finding.message if finding.place is None else "")
            if not any(key == (f.name, f.place, f.message if f.place is None else "") for f in self.findings):
                self.findings.append(finding)
                if self._found is not None:
                    self._found(finding)

    def _silence(self, rule: Rule, error: Exception) -> None:
        for listeners in self._reactions.values():
            listeners[:] = [pair for pair in listeners if pair[0] is not rule]
        if os.environ.get("TRUELOOP_TRACEBACK") == "1":
            traceback.print_exc()
        self.silenced.append(f"{rule.name}: {type(error).__name__}: {error}")


def two_modes(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers that behave otherwise in eval mode: dropout with p > 0, batch statistics.

    Example:
        >>> [name for name, _ in two_modes(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2), nn.Dropout(0)))]
        ['0', '1']
    """
    found = []
    for name, layer in module.named_modules():
        dropout = (
            isinstance(layer, (_DropoutNd, nn.MultiheadAttention))
            and getattr(layer, "p", getattr(layer, "dropout", 0)) > 0
        )
        statistics = isinstance(layer, _BatchNorm) or (isinstance(layer, _InstanceNorm) and layer.track_running_stats)
        recurrent = isinstance(layer, nn.RNNBase) and layer.dropout > 0 and layer.num_layers > 1
        if dropout or statistics or recurrent:
            found.append((name, layer))
    return found
