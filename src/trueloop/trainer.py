"""The trainer: keeps what it is given, and opens three ways into the one loop.

1. ``fit``: ready-made. 2. ``train``: the same loop as a stream of events. 3. ``epochs``, ``batches``, ``update`` and
``evaluating``: your own loop, with the ritual's bookkeeping and none of its policy. All three end in ``step.Ritual``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trueloop import loop
from trueloop.checkpoint import weights
from trueloop.checks import check_count, check_positive
from trueloop.data.arrays import is_arrays
from trueloop.data.device import onto
from trueloop.data.feed import Feed, batch_size_for, feed
from trueloop.data.given import in_order
from trueloop.data.randomness import borrowed_rngs
from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.evaluate import evaluate, predict
from trueloop.events import EvalEnded, StepEnded
from trueloop.loop import Evaluation, Events, Observer, Run, watch
from trueloop.objective import Batch, Count, Objective, Penalty
from trueloop.observers.jsonl import Jsonl
from trueloop.observers.run_folder import RunRecord, claim
from trueloop.observers.save import SaveAtEnd
from trueloop.optim import Average, recompute_batchnorm
from trueloop.own_loop import OwnLoop
from trueloop.plan import Plan
from trueloop.planning import describe_evaluation, in_words, make_plan
from trueloop.result import Collector, Result
from trueloop.seeds import deterministic as deterministic_kernels
from trueloop.seeds import seed_all
from trueloop.setup import (
    Choices,
    MetricLike,
    OptimizerLike,
    ScheduleLike,
    Setup,
    begin_average,
    length,
    make_ritual,
    set_up,
)
from trueloop.step import Settings

BATCH_SIZE = 256
"""Samples a batch in ``evaluate`` and ``predict``, where none was given: it changes no result."""

WIDER = 4
"""Evaluation batches are so many times those of training, for a loss that does not depend on the batch: they keep no
activations for a backward pass. A guess that is safe in memory; a DataLoader of your own sets another size."""


class Trainer:
    """Trains a model: the ritual in the one right order.

    Args:
        model: moved to the device at the first use.
        loss: a ``torch.nn`` loss, or a callable ``(model, batch) -> loss``, ``-> (loss, count)`` with the mean loss and
            what it is the mean over, or ``-> dict`` with ``loss``; see ``objective``. A loop of your own needs none.
        optimizer: a factory (``trueloop.optim.adamw(lr=…)``), an instance, or a dict of them by name, where a factory
            trains the submodule of that name.
        schedule: a function of the step that multiplies the rate (``trueloop.schedules``), or a torch ``LRScheduler``,
            whose cadence is found and said in the plan (``schedules.stepped`` sets it).
        metrics: by name, torchmetrics or functions ``(outputs, targets) -> number``; evaluations give them. Outputs are
            what the model returns; with a loss of ``(model, batch)`` that calls it several times, or a batch without a
            target, the loss returns a dict with ``loss``, ``output`` and ``target``.
        clip_norm: the gradients' norm is brought down to this, after unscaling; None does not clip.
        clip_value: each gradient is brought into ±this, after the norm.
        accumulate: microbatches an optimizer step is made of; the gradient is that of one big batch.
        precision: ``fp32``, ``bf16`` or ``fp16`` (with a gradient scaler); weights stay as they are.
        memory_format: ``channels_last`` makes convolutions faster; ``contiguous``; None leaves the model as it is.
        compile: compile model and loss by ``torch.compile``, where a compiler is found.
        penalty: ``objective.l1(…)`` or ``l2(…)``, or a function of the model, added to the training loss.
        average: ``optim.ema(…)`` or ``swa(…)``: an average of the weights to keep, and to evaluate with.
        device: None takes CUDA, else MPS, else the CPU.
        deterministic: in ``fit`` and ``train``, only kernels that give the same bits twice; together with a seed.

    Attributes:
        setup: device, precision, optimizers and metrics as they were set up; made at the first use.

    Raises:
        ArgumentError: a setting that cannot be, with its value.

    Example:
        >>> import trueloop as tl
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(1)
        >>> trainer = Trainer(nn.Linear(1, 1), nn.MSELoss(), tl.optim.sgd(lr=0.5))
        >>> result = trainer.fit((x, 3 * x + 1), epochs=20, batch_size=16, progress=False)
        >>> round(result.loss, 6)
        0.0
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Any] | Objective | None = None,
        optimizer: OptimizerLike | Mapping[str, OptimizerLike] | None = None,
        *,
        schedule: ScheduleLike | Mapping[str, ScheduleLike] | None = None,
        metrics: Mapping[str, MetricLike] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        precision: str = "fp32",
        memory_format: str | None = None,
        compile: bool = False,
        penalty: Penalty | None = None,
        average: Average | None = None,
        device: str | torch.device | None = None,
        deterministic: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if optimizer is None:
            raise ArgumentError("expected an optimizer, got none; for example optimizer=trueloop.optim.adamw(lr=1e-3)")
        check_positive("clip_norm", clip_norm, hint="None does not clip")
        check_positive("clip_value", clip_value, hint="None does not clip")
        check_count("accumulate", accumulate, hint="1 takes a step for each batch")
        if metrics is not None and not hasattr(metrics, "items"):
            raise ArgumentError(f"metrics must be a dict of them by name, got {metrics!r}; write metrics={{'name': …}}")
        for name, metric in (metrics or {}).items():
            if not callable(metric) or isinstance(metric, type):
                raise ArgumentError(f"metric {name!r} must be a torchmetrics instance or a function, got {metric!r}")
        if metrics is not None and "loss" in metrics:
            raise ArgumentError("a metric cannot be called 'loss', which every evaluation gives; choose another name")
        if average is not None and not isinstance(average, Average):
            raise ArgumentError(f"average must be trueloop.optim.ema(…) or swa(…), got {average!r}")
        if penalty is not None and not callable(penalty):
            raise ArgumentError(f"penalty must be trueloop.objective.l1(…), l2(…) or a function, got {penalty!r}")
        if average is not None and isinstance(optimizer, Mapping):
            raise ArgumentError("an average of weights goes with one optimizer, got several; keep one by torch's means")
        self.model = model
        self.choices = Choices(
            model=model,
            loss=loss,
            optimizer=optimizer,
            schedule=schedule,
            metrics=metrics or {},
            settings=Settings(clip_norm, clip_value, penalty),
            accumulate=accumulate,
            precision=precision,
            memory_format=memory_format,
            compile=compile,
            average=average,
            device=device,
            deterministic=deterministic,
        )

    # --- 1. ready-made ---------------------------------------------------------------------------------------------

    def fit(
        self,
        train: Any,
        val: Any = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        shuffle: bool = True,
        workers: int = 0,
        worker_timeout: float = 300.0,
        evaluate_every: int | None = 1,
        evaluate_every_steps: int | None = None,
        out: Path | str | None = None,
        about: Mapping[str, Any] | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = True,
    ) -> Result:
        """Trains: ``watch(train(...), observers)``, and nothing else.

        Args:
            train: tensors or arrays (X, y), a Dataset, an IterableDataset, or a DataLoader of your own, which is
                iterated as it is, once an epoch.
            val: the same, for evaluations; read in order.
            epochs: passes over the training data; or
            steps: optimizer steps in all.
            batch_size: samples a microbatch; None for a DataLoader, which has its own.
            seed: of python, numpy, torch, workers and the data's order; None leaves the global RNGs as they are, and
                the order comes from ``torch.initial_seed()``.
            shuffle: a new order of the training data each epoch.
            workers: processes that make samples of a Dataset; the bits are the same whatever their number.
            worker_timeout: seconds to wait for a batch before its worker counts as hanging.
            evaluate_every: epochs between evaluations; the last epoch always ends with one. None for none but that.
            evaluate_every_steps: optimizer steps between evaluations, besides.
            out: the run's folder: ``run.json``, ``events.jsonl``, and ``model.safetensors`` at the end.
            about: what else ``run.json`` is to hold.
            observers: called with every event; one may reply ``Stop``.
            progress: the plan, a live display (or plain lines), and a summary.

        Returns:
            What came of it. Ctrl-C ends the run with its record complete, and is raised again.

        Raises:
            TrueloopError: bad input, as early as it can be known; see ``trueloop.errors``.
        """
        out = None if out is None else Path(out)
        for observer in observers:
            if not callable(observer):
                raise ArgumentError(f"observers must be callables of an event, got {observer!r}")
        events = self.train(
            train,
            val,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            workers=workers,
            worker_timeout=worker_timeout,
            evaluate_every=evaluate_every,
            evaluate_every_steps=evaluate_every_steps,
            saves=None if out is None else f"{out}: run.json, events.jsonl; {weights.NAME} at the end",
        )
        collect = Collector()
        watchers: list[Observer] = [collect]
        if progress:
            from trueloop.observers.progress import Progress  # rich takes 0.1 s to import

            watchers.append(Progress())
        if out is not None:
            settings: dict[str, Any] = {
                "epochs": epochs,
                "steps": steps,
                "batch_size": batch_size,
                "seed": seed,
                "shuffle": shuffle,
            }
            settings |= {"workers": workers, "worker_timeout": worker_timeout, "evaluate_every": evaluate_every}
            settings |= {"evaluate_every_steps": evaluate_every_steps}
            claim(out, {**settings, "trainer": self._settings(), **(about or {})})
            save = SaveAtEnd(lambda file: weights.save_weights(self.evaluated_model, file), out / weights.NAME)
            watchers += [Jsonl(out / "events.jsonl"), save, RunRecord(out)]
        watch(events, [*watchers, *observers])
        return collect.result(out)

    # --- 2. the stream ---------------------------------------------------------------------------------------------

    def train(
        self,
        train: Any,
        val: Any = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        shuffle: bool = True,
        workers: int = 0,
        worker_timeout: float = 300.0,
        evaluate_every: int | None = 1,
        evaluate_every_steps: int | None = None,
        saves: str | None = None,
    ) -> Events:
        """The loop as a stream of events: iterate over it, break out when you like.

        The arguments are those of ``fit``; all is checked and set up before the first event is asked for.
        """
        run = self._run(
            train,
            val,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            workers=workers,
            worker_timeout=worker_timeout,
            evaluate_every=evaluate_every,
            evaluate_every_steps=evaluate_every_steps,
            saves=saves,
        )
        self._own.wake()
        if seed is not None:
            seed_all(seed)
        if not self.model.training:
            self.model.train()
        return self._deterministic(run) if self.choices.deterministic else loop.train(run)

    def _deterministic(self, run: Run) -> Events:
        with deterministic_kernels(True):
            yield from loop.train(run)

    def plan(self, train: Any, val: Any = None, **how: Any) -> Plan:
        """What ``fit`` with these arguments is going to do: steps, ritual, rates, device; nothing is trained."""
        for name in ("out", "observers", "progress", "about"):
            how.pop(name, None)
        groups = [group for optimizer in self.setup.optimizers.values() for group in optimizer.param_groups]
        before = [dict(group) for group in groups]
        last_run, averaged = self._last_run, self.setup.averaged
        try:
            return self._run(train, val, **how).plan
        finally:  # torch's schedulers set rates and momenta when they are made
            self._last_run, self.setup.averaged = last_run, averaged
            for group, kept in zip(groups, before, strict=True):
                group.clear()
                group.update(kept)

    # --- 3. your own loop ------------------------------------------------------------------------------------------

    def epochs(self, number: int) -> Iterator[int]:
        """The epochs of a loop of your own, 0-based. Schedules that count epochs move at each one's end.

        Example:
            >>> import trueloop as tl
            >>> trainer = Trainer(nn.Linear(1, 1), optimizer=tl.optim.sgd(lr=0.1))
            >>> x, y = torch.ones(4, 1), torch.zeros(4, 1)
            >>> for epoch in trainer.epochs(2):
            ...     for inputs, targets in trainer.batches((x, y), batch_size=2):
            ...         ended = trainer.update(nn.functional.mse_loss(trainer.model(inputs), targets))
            >>> ended.step
            4
        """
        return self._own.epochs(number)

    def batches(self, data: Any, **how: Any) -> Iterator[Batch]:
        """The batches of one epoch of a loop of your own: in train mode, on the device, under autocast if any.

        Args:
            data: as for ``fit``.
            **how: ``batch_size``, ``shuffle``, ``workers``, ``worker_timeout`` as for ``fit``; ``seed`` of the order.
        """
        self._last_run = None
        return self._own.batches(self._feed(data, shuffle=how.pop("shuffle", True), **how))

    def update(self, loss: Tensor, *, count: Count | None = None, optimizer: str = "") -> StepEnded | None:
        """The ritual, from a loss on: zero, backward, unscale, clip, step, schedule.

        Args:
            loss: a scalar with its graph: a mean over the batch.
            count: what it is the mean over, if not the batch's samples (tokens); matters when accumulating.
            optimizer: which one, where there are several.

        Returns:
            The step's record; None within an accumulation window, where no step is taken yet.
        """
        self._last_run = None
        return self._own.update(loss, count, optimizer)

    def evaluating(self, data: Any, **how: Any) -> Iterator[Batch]:
        """Batches in order, in eval mode and without a graph; modes are as they were after the loop, or a break."""
        how["batch_size"] = batch_size_for(data, how.get("batch_size"), BATCH_SIZE)
        return self._own.evaluating(self._feed(data, shuffle=False, **how))

    # --- using a model ---------------------------------------------------------------------------------------------

    def evaluate(self, data: Any, *, batch_size: int | None = None, workers: int = 0) -> dict[str, float]:
        """The loss and all metrics over all samples of ``data``, exactly.

        Example:
            >>> import trueloop as tl
            >>> x = torch.tensor([[1.0], [2.0], [6.0]])
            >>> Trainer(nn.Linear(1, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1)).evaluate((x, x)).keys()
            dict_keys(['loss'])
        """
        form = self._objective()
        source = self._feed(
            data, shuffle=False, batch_size=batch_size_for(data, batch_size, BATCH_SIZE), workers=workers
        )
        try:
            batches = onto(self.setup.device)(source.epoch(0))
            return dict(evaluate(self.evaluated_model, form, batches, self.setup.metrics).metrics)
        finally:
            source.close()

    def predict(
        self, data: Any, *, batch_size: int | None = None, workers: int = 0, has_target: bool | None = None
    ) -> Any:
        """The model's outputs for all samples, in the order of the input, on the CPU.

        Args:
            data: as for ``fit``; inputs alone, or with their targets, which are left aside.
            batch_size: samples a batch.
            workers: as for ``fit``.
            has_target: whether the last entry of each batch is a target. None takes a lone tensor for inputs, and the
                last of several entries for the target, as ``fit`` does.

        Example:
            >>> import trueloop as tl
            >>> model = nn.Linear(2, 1)
            >>> outputs = Trainer(model, optimizer=tl.optim.sgd(lr=0.1)).predict(torch.zeros(5, 2), batch_size=2)
            >>> outputs.shape, bool((outputs == model.bias).all())
            (torch.Size([5, 1]), True)
        """
        how = {"batch_size": batch_size_for(data, batch_size, BATCH_SIZE), "workers": workers}
        source = self._feed(data, shuffle=False, **how)
        if source.shuffled:  # a DataLoader of the user's: the order of its input is that of its dataset
            source = self._feed(in_order(data, BATCH_SIZE), shuffle=False, **how)
        try:
            with self.setup.precision.autocast(self.setup.device):
                return predict(self.evaluated_model, onto(self.setup.device)(source.epoch(0)), has_target=has_target)
        finally:
            source.close()

    @property
    def step(self) -> int:
        """Optimizer steps taken in the run that goes on, or went on last."""
        return self._own.step if self._last_run is None else self._last_run.ritual.step

    @property
    def averaged(self) -> nn.Module | None:
        """The model with averaged weights, if an average is kept and has begun."""
        averaged = self.setup.averaged
        return None if averaged is None or not averaged.taken else averaged.module

    @cached_property
    def setup(self) -> Setup:
        return set_up(self.choices)

    # --- from arguments to a run -----------------------------------------------------------------------------------

    _last_run: Run | None = None
    _recomputed_at = 0
    """How many weights the average had taken in when BatchNorm's statistics were last made."""

    @cached_property
    def _own(self) -> OwnLoop:
        return OwnLoop(self.setup)

    def _feed(self, data: Any, *, shuffle: bool, seed: int | None = None, **how: Any) -> Feed:
        how.setdefault("batch_size", None)
        return feed(data, seed=torch.initial_seed() if seed is None else seed, shuffle=shuffle, **how)

    def _objective(self) -> Objective:
        form = self.setup.objective
        if form is None:
            raise ArgumentError(
                "expected a loss, got none: give Trainer(model, loss=…); only a loop of your own needs none"
            )
        return form

    def _run(
        self,
        train: Any,
        val: Any = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        shuffle: bool = True,
        workers: int = 0,
        worker_timeout: float = 300.0,
        evaluate_every: int | None = 1,
        evaluate_every_steps: int | None = None,
        saves: str | None = None,
    ) -> Run:
        for name, value in (("evaluate_every", evaluate_every), ("evaluate_every_steps", evaluate_every_steps)):
            if value is not None:
                check_count(name, value, hint="None for none")
        setup, form = self.setup, self._objective()
        if len(setup.optimizers) > 1:
            raise ArgumentError(
                f"fit and train have one loss and one optimizer, got optimizers {', '.join(setup.optimizers)}; write a "
                "loop of your own: trainer.batches(…), trainer.update(loss, optimizer=…)"
            )
        how: dict[str, Any] = {"workers": workers, "worker_timeout": worker_timeout, "seed": seed}
        source = self._feed(train, batch_size=batch_size, shuffle=shuffle, **how)
        held_out = None if val is None else self._held_out(train, val, batch_size, form, how)

        def again() -> Feed:
            return self._feed(in_order(train, BATCH_SIZE), shuffle=False, batch_size=batch_size, **how)

        begin_average(setup)
        self._recomputed_at = 0
        notes: list[str] = []
        run_length = length(source, self.choices.accumulate, epochs, steps)
        (optimizer,) = setup.optimizers
        ritual, schedule, schedule_text, latch = make_ritual(setup, optimizer, run_length, notes)
        watched = None if ritual.scheduler is None else ritual.scheduler.metric
        if held_out is not None and watched is not None and watched.partition("/")[0] not in ("loss", *setup.metrics):
            raise UnknownNameError("metric", watched, ["loss", *setup.metrics])
        if held_out is None and ritual.scheduler is not None and ritual.scheduler.every == "evaluation":
            notes.append("the schedule moves after evaluations, and there is no validation data: it never will")
        if self.choices.deterministic and seed is None:
            notes.append("deterministic=True without a seed: the same bits twice need seed=… as well")
        plan = make_plan(
            setup,
            ritual,
            run_length,
            source,
            schedule,
            schedule_text,
            evaluates=describe_evaluation(held_out, evaluate_every, evaluate_every_steps, self.choices.metrics),
            saves=saves,
            notes=notes,
        )
        self._last_run = Run(
            ritual=ritual,
            objective=form,
            feed=source,
            plan=plan,
            seed=torch.initial_seed() if seed is None else seed,
            accumulate=self.choices.accumulate,
            epochs=epochs,
            steps=steps,
            evaluate=None if held_out is None else self._evaluation(form, held_out, again),
            evaluate_every=evaluate_every,
            evaluate_every_steps=evaluate_every_steps,
            onto_device=onto(setup.device),
            latch=latch,
            held_out=held_out,
            at_end=lambda: self._recompute_batchnorm(form, again),
        )
        return self._last_run

    def _held_out(self, train: Any, val: Any, batch_size: int | None, form: Objective, how: dict[str, Any]) -> Feed:
        """Validation data, in larger batches than training's where that changes nothing: no graph is kept."""
        if isinstance(val, list) and not is_arrays(val) and not isinstance(train, list):
            batch_size = None  # batches as they are; a list of samples goes with one to train on
        elif batch_size is not None and form.criterion is not None:
            batch_size *= WIDER
        return self._feed(val, shuffle=False, batch_size=batch_size_for(val, batch_size, BATCH_SIZE), **how)

    def _evaluation(self, form: Objective, held_out: Feed, again: Callable[[], Feed]) -> Evaluation:
        """An evaluation on ``held_out``; ``again`` gives the training data, for BatchNorm's statistics."""
        to_device = onto(self.setup.device)

        def evaluation(step: int, epoch: int) -> EvalEnded:
            if self.evaluated_model is not self.model:
                self._recompute_batchnorm(form, again)
            try:
                batches = to_device(held_out.epoch(0))
                return evaluate(self.evaluated_model, form, batches, self.setup.metrics, step=step, epoch=epoch)
            finally:
                held_out.close()  # its workers, if it was left in the middle

        return evaluation

    def _recompute_batchnorm(self, form: Objective, again: Callable[[], Feed]) -> None:
        """Makes the BatchNorm statistics of averaged weights anew, if the average asks for it and has moved since."""
        averaged, average = self.setup.averaged, self.choices.average
        if averaged is None or average is None or not average.recompute or averaged.taken == self._recomputed_at:
            return
        self._recomputed_at = averaged.taken
        frozen = {name for name, module in self.model.named_modules() if not module.training}
        with borrowed_rngs(), contextlib.closing(again()) as train:
            batches = onto(self.setup.device)(train.epoch(0))
            recompute_batchnorm(averaged.module, batches, forward=form.compute, keep=frozen)

    @property
    def evaluated_model(self) -> nn.Module:
        """What evaluations and predictions use: the averaged weights where asked for and begun, else the model."""
        averaged = self.averaged
        return (
            averaged if averaged is not None and self.choices.average and self.choices.average.evaluate else self.model
        )

    def _settings(self) -> dict[str, Any]:
        """What the trainer was given, in words, for ``run.json``."""
        return {name: in_words(value) for name, value in vars(self.choices).items() if name != "model"}
