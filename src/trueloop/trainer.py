"""The trainer: keeps what it is given, and opens three ways into the one loop.

1. ``fit``: ready-made. 2. ``train``: the same loop as a stream of events. 3. ``epochs``, ``batches``, ``update`` and
``evaluating``: your own loop, with the ritual's bookkeeping and none of its policy. All three end in ``step.Ritual``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trueloop import loop, state
from trueloop.checkpoint import retention, weights
from trueloop.checkpoint.layout import FOLDER
from trueloop.checkpoint.lock import lock
from trueloop.checkpoint.resume import check_kept
from trueloop.checkpoint.saving import Saving, saved
from trueloop.checkpoint.signals import Asked, ending, listening
from trueloop.checks import check_count, check_positive
from trueloop.consult import consulted
from trueloop.data.feed import batch_size_for
from trueloop.data.part import Part
from trueloop.errors import ArgumentError
from trueloop.evaluate import wake
from trueloop.events import StepEnded
from trueloop.inference import BATCH_SIZE, averaged_model, evaluated_data, evaluated_model, predicted_data
from trueloop.loop import Events, Observer, Run, watch
from trueloop.objective import Batch, Count, Objective, Penalty
from trueloop.observers.jsonl import Jsonl
from trueloop.observers.run_folder import RunRecord
from trueloop.observers.save import SaveAtEnd
from trueloop.optim import Average
from trueloop.parallel.agree import agreed
from trueloop.parallel.alike import begin_alike, check_alike
from trueloop.parallel.failing import by_the_first, each_told_once, telling, told_once
from trueloop.parallel.reading import shared_feed
from trueloop.parallel.waiting import last_words
from trueloop.parallel.world import World, check_alone, world
from trueloop.plan import Plan
from trueloop.planning import in_words
from trueloop.result import Collector, Result
from trueloop.run import make_run
from trueloop.seeds import deterministic as deterministic_kernels
from trueloop.seeds import seed_all
from trueloop.session import Session
from trueloop.setup import (
    Choices,
    MetricLike,
    OptimizerLike,
    Parallel,
    ScheduleLike,
    Setup,
    set_up,
)
from trueloop.step import Settings

if TYPE_CHECKING:
    from trueloop.examine.result import Examined
    from trueloop.verify_resume.verdict import Verdict


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
        doctor: in ``fit`` and ``train``, listens to the first steps and then to a sample; what it finds are events
            (``Found``). It changes no bit of the training; False leaves it out.
        parallel: how processes that torchrun has started train together: ``ddp``, a whole model on each, or
            ``fsdp``, a part of the model on each; or a ``DDP(…)`` or ``FSDP(…)`` with settings. ``auto`` is ``ddp``,
            where there are several. None: each trains for itself.
        process_timeout: seconds to wait for another process before it counts as hanging, and is named; None takes
            those of the process group: 600, where trueloop made it.
        compare_every_steps: the weights of all processes are compared, to the bit, at each evaluation and each epoch's
            end, and after each so many steps.

    Attributes:
        setup: device, precision, optimizers and metrics as they were set up; made at the first use.
        keep: state of your own, by name: any object with ``state_dict`` and ``load_state_dict`` is saved with the run,
            and put back when it is resumed.

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
        doctor: bool = True,
        parallel: Parallel = "auto",
        process_timeout: float | None = None,
        compare_every_steps: int | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if optimizer is None:
            raise ArgumentError("expected an optimizer, got none; for example optimizer=trueloop.optim.adamw(lr=1e-3)")
        check_positive("clip_norm", clip_norm, hint="None does not clip")
        check_positive("clip_value", clip_value, hint="None does not clip")
        check_count("accumulate", accumulate, hint="1 takes a step for each batch")
        check_positive("process_timeout", process_timeout, hint="None waits 600 seconds")
        if compare_every_steps is not None:
            check_count("compare_every_steps", compare_every_steps, hint="None does so after evaluations")
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
        self.keep: dict[str, Any] = {}
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
            doctor=doctor,
            parallel=parallel,
            process_timeout=process_timeout,
            compare_every_steps=compare_every_steps,
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
        saving: Saving | None = None,
        save_every_steps: int | None = None,
        resume: Path | str | None = None,
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
            out: the run's folder: ``run.json``, ``events.jsonl``, ``checkpoints``; ``model.safetensors`` at the end.
            saving: when checkpoints are made, and which are kept; ``Saving()`` by default, where there is a folder.
            save_every_steps: the same as ``saving=Saving(every_steps=…)``.
            resume: a run's folder, to go on from its newest whole checkpoint; ``"auto"`` goes on in ``out`` if there is
                anything to go on from, and begins otherwise. Settings that are not those of before are said.
            about: what else ``run.json`` is to hold.
            observers: called with every event; one may reply ``Stop``.
            progress: the plan, a live display (or plain lines), and a summary.

        Returns:
            What came of it. Ctrl-C ends the run with its record complete, and is raised again.

        Raises:
            TrueloopError: bad input, as early as it can be known; see ``trueloop.errors``.
            Preempted: SIGTERM or SIGUSR1 came; the state is saved, and the process is to exit with code 75.
        """
        if out == "":
            raise ArgumentError("expected a folder as out=, got an empty text; None writes nothing")
        out = None if out is None else Path(out)
        saving = state.chosen(saving, save_every_steps, out, val, self.choices.metrics)
        check_kept(self.keep)
        for observer in observers:
            if not callable(observer):
                raise ArgumentError(f"observers must be callables of an event, got {observer!r}")
        collect, asked = Collector(), Asked()
        watchers: list[Observer] = [collect]
        here = self._here
        if progress and here.first:
            from trueloop.observers.progress import Progress  # rich takes 0.1 s to import

            watchers.append(Progress())
        how: dict[str, Any] = {
            "epochs": epochs,
            "steps": steps,
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "workers": workers,
            "worker_timeout": worker_timeout,
            "evaluate_every": evaluate_every,
            "evaluate_every_steps": evaluate_every_steps,
        }
        with told_once(here), contextlib.ExitStack() as until_the_end:
            session = self._session  # which the processes make together
            saver = None
            if out is not None and here.first:
                save, record = SaveAtEnd(session.write_weights, out / weights.NAME), RunRecord(out)
                watchers += [Jsonl(out / "events.jsonl"), save, record]
                until_the_end.enter_context(last_words(record.failed))
                saver = session.saver(out, saving, asked)
            watchers += observers
            goes_on = out is not None and out.exists() and (resume is not None or session.found is not None)

            def go_on() -> None:
                if goes_on and out is not None:
                    until_the_end.enter_context(lock(out))  # before anything in it is read, or cut back
                if resume is not None:
                    session.find(resume, out)

            if not here.alone:
                check_alike(state.keeping_on_all(out, saving, self.choices.metrics))
            by_the_first(go_on, here)
            session.follow()
            found = session.found
            own = watchers if saver is None else [*watchers, saver]
            asked.compare_every = saving.every_steps if out is not None else None
            until_the_end.enter_context(session.watched_by(own, asked if out is not None else None))
            events = self.train(train, val, **how, saves=None if out is None else f"{out}: {saving.describe()}")
            if out is not None:
                settings = {**how, "saving": asdict(saving), "trainer": self._settings(), **(about or {})}

                def take() -> None:
                    state.take_folder(out, found, settings)
                    if not goes_on:
                        until_the_end.enter_context(lock(out))
                    retention.sweep(out / FOLDER)

                by_the_first(take, here)
                until_the_end.enter_context(listening(asked))
                events = until_the_end.enter_context(session.saved_by_all(events, asked))
            if saver is not None:
                events = saved(events, saver)
            watch(events, watchers)
        if asked.signal is not None:  # it came in the last moments: what the program does next must not begin
            raise ending(asked.signal)
        return collect.result(out)

    def resume(self, folder: Path | str, *, step: int | None = None) -> None:
        """Goes back to a checkpoint: weights at once, and all else when the next run begins, which goes on from there.

        Args:
            folder: a run's, for its newest whole checkpoint (a damaged one is named, and the one before it taken); or
                a checkpoint's own.
            step: the checkpoint of that many optimizer steps.

        Raises:
            CheckpointError: there is none, or none that is whole.
            DataError: the checkpoint is of another architecture, with a table of the names that differ.

        Example:
            >>> import tempfile, trueloop as tl
            >>> x, y, out = torch.randn(8, 2), torch.randn(8, 1), tempfile.mkdtemp()
            >>> def trainer(): return Trainer(nn.Linear(2, 1), nn.MSELoss(), tl.optim.adam(lr=0.1))
            >>> first = trainer()
            >>> for event in first.train((x, y), epochs=3, batch_size=2):
            ...     if isinstance(event, tl.StepEnded) and event.step == 7: _ = first.save(out)
            >>> second = trainer()
            >>> second.resume(out)
            >>> for event in second.train((x, y), epochs=3, batch_size=2): pass
            >>> bool((first.model.weight == second.model.weight).all())
            True
        """
        session, here = self._session, self._here
        with telling(here):
            by_the_first(lambda: session.seek(folder, step), here)
            session.follow()

    def save(self, folder: Path | str) -> Path:
        """Saves the whole state as it is now: between two events of ``train``, or in a loop of your own.

        Args:
            folder: a run's; the checkpoint is made in its ``checkpoints``.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: it cannot be written; the ones before it are as they were.
        """
        return self._session.save(Path(folder))

    def verify_resume(
        self, train: Any, val: Any = None, *, verify_steps: int | None = None, timeout: float = 1800.0, **how: Any
    ) -> Verdict:
        """Tries whether a run that is killed and resumed ends with every bit of the run that was never stopped.

        Trains for some steps in forks of this process: to the end, twice; and killed in the middle of an epoch, and
        resumed. This trainer and the random numbers of this process stay as they are, and no file is left. On an
        accelerator, write a recipe and run ``trueloop verify-resume``.

        Args:
            train: as for ``fit``.
            val: as for ``fit``.
            verify_steps: optimizer steps of each run; None takes two short epochs and more, or 16 steps.
            timeout: seconds for one of them.
            **how: what else ``fit`` takes; without ``epochs`` or ``steps``, the run is as long as the trial. Nothing is
                written to ``out``; observers without ``state_dict``, which only watch, are left out.

        Raises:
            ArgumentError: the process cannot be forked.
            TrueloopError: a run failed, as it would have failed in ``fit``.

        Example:
            >>> import trueloop as tl
            >>> trainer = Trainer(nn.Linear(2, 1), nn.MSELoss(), tl.optim.adam(lr=0.1))
            >>> print(trainer.verify_resume((torch.randn(8, 2), torch.randn(8, 1)), batch_size=2))
            exact: killed after step 6, in the middle of an epoch, and resumed in a new process, it had at step 12 ...
        """
        from trueloop.verify_resume import verify_resume

        check_alone("verify_resume")
        return verify_resume(self, train, val, how, verify_steps=verify_steps, timeout=timeout)

    def examine(
        self,
        train: Any,
        val: Any = None,
        *,
        max_steps: int = 200,
        max_seconds: float = 10.0,
        timeout: float = 120.0,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
        **how: Any,
    ) -> Examined:
        """Examines model, loss and data before a run: can one batch be learned, do splits share samples, …

        Each examination is made in a fork of this process (on an accelerator in this one, and all is put back): the
        trainer, the data and the random numbers stay as they are, to the bit.

        Args:
            train: as for ``fit``.
            val: as for ``fit``.
            max_steps: of a trial to learn a few samples of one batch by heart.
            max_seconds: of the same.
            timeout: seconds for one examination; it is then ended, and could not be judged.
            select: only what speaks by the names of these rules: names, codes, or hundreds (``"5xx"``).
            ignore: not these.
            **how: what else ``fit`` takes; without ``batch_size``, data that needs one is read in batches of 32.

        Returns:
            All examinations; print it. ``findings`` are what is wrong, ``passed`` is whether nothing grave is.

        Raises:
            TrueloopError: bad input, as ``fit`` would raise it.

        Example:
            >>> import trueloop as tl
            >>> trainer = Trainer(nn.Linear(2, 1), nn.MSELoss(), tl.optim.adam(lr=0.1))
            >>> x = torch.randn(64, 2)
            >>> trainer.examine((x[:48], x[:48, :1]), (x[48:], x[48:, :1]), select=["leak-between-splits"]).passed
            True
        """
        from trueloop.examine.subject import Limits
        from trueloop.examine.whole import examine

        check_alone("an examination")
        limits = Limits(max_steps, max_seconds, timeout)
        return examine(self, train, val, how, limits=limits, select=select, ignore=ignore)

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
        session = self._session
        found = session.found
        run = self._run(
            train,
            val,
            found=found,
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
        session.found = None  # not before: a mistyped argument must not lose it
        session.own.wake()
        if seed is not None:
            seed_all(seed)
        if found is not None:
            state.go_on(run, session.parts, found)
        wake(self.model)
        events = self._deterministic(run) if self.choices.deterministic else loop.train(run)
        events = agreed(events, run, self.setup.world, session.asked or Asked(), self.choices.compare_every_steps)
        if self.choices.doctor:
            from trueloop.examine.at_start import at_start

            events = consulted(events, run, partial(at_start, self.model, run, train, val))
        return events if self.setup.world.alone else each_told_once(events, self.setup.world)

    def _deterministic(self, run: Run) -> Events:
        with deterministic_kernels(True):
            yield from loop.train(run)

    def plan(self, train: Any, val: Any = None, **how: Any) -> Plan:
        """What ``fit`` with these arguments is going to do: steps, ritual, rates, device; nothing is trained."""
        for name in ("out", "observers", "progress", "about", "saving", "save_every_steps", "resume"):
            how.pop(name, None)
        groups = [group for optimizer in self.setup.optimizers.values() for group in optimizer.param_groups]
        before = [dict(group) for group in groups]
        last_run, averaged = self._session.run, self.setup.averaged
        try:
            return self._run(train, val, **how).plan
        finally:  # torch's schedulers set rates and momenta when they are made
            self._session.run, self.setup.averaged = last_run, averaged
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
        return self._session.own.epochs(number)

    def batches(self, data: Any, **how: Any) -> Iterator[Batch]:
        """The batches of one epoch of a loop of your own: in train mode, on the device, under autocast if any.

        Args:
            data: as for ``fit``.
            **how: ``batch_size``, ``shuffle``, ``workers``, ``worker_timeout`` as for ``fit``; ``seed`` of the order.

        Where torchrun has started several processes, each gets its part of every batch; one for which a last batch has
        no sample gets one of the others', and its ``update`` counts for nothing. What the loop's body draws from
        torch's random numbers is each process's own.
        """
        self._session.run = None
        part = Part(self.setup.world.rank, self.setup.world.size)
        return self._session.own.batches(shared_feed(data, shuffle=how.pop("shuffle", True), part=part, **how))

    def update(self, loss: Tensor, *, count: Count | None = None, optimizer: str = "") -> StepEnded | None:
        """The ritual, from a loss on: zero, backward, unscale, clip, step, schedule.

        Args:
            loss: a scalar with its graph: a mean over the batch. Where there are several processes, over this one's
                part of it: the gradient is that of the mean over all parts.
            count: what it is the mean over, if not the batch's samples (tokens); matters when accumulating.
            optimizer: which one, where there are several.

        Returns:
            The step's record; None within an accumulation window, where no step is taken yet.
        """
        self._session.run = None
        return self._session.own.update(loss, count, optimizer)

    def evaluating(self, data: Any, **how: Any) -> Iterator[Batch]:
        """Batches in order, in eval mode and without a graph; modes are as they were after the loop, or a break.

        Every process gets all batches, so that whatever you compute of them is exact on each, or on one alone; to share
        the work, call ``evaluate``. A torchmetric of your own sums over the processes when it is computed, and would
        count every sample on each: make it with ``sync_on_compute=False``.
        """
        how["batch_size"] = batch_size_for(data, how.get("batch_size"), BATCH_SIZE)
        return self._session.own.evaluating(shared_feed(data, **how))

    # --- using a model ---------------------------------------------------------------------------------------------

    def evaluate(self, data: Any, *, batch_size: int | None = None, workers: int = 0) -> dict[str, float]:
        """The loss and all metrics over all samples of ``data``, exactly.

        Example:
            >>> import trueloop as tl
            >>> x = torch.tensor([[1.0], [2.0], [6.0]])
            >>> Trainer(nn.Linear(1, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1)).evaluate((x, x)).keys()
            dict_keys(['loss'])
        """
        ended = evaluated_data(self.setup, data, batch_size=batch_size, workers=workers, step=self.step)
        return dict(ended.metrics)

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
        return predicted_data(
            self.setup, data, batch_size=batch_size, workers=workers, has_target=has_target, step=self.step
        )

    @property
    def step(self) -> int:
        """Optimizer steps taken in the run that goes on, or went on last; after ``resume``, those of the checkpoint."""
        return self._session.step

    @property
    def averaged(self) -> nn.Module | None:
        """The model with averaged weights, if an average is kept and has begun."""
        return averaged_model(self.setup)

    @property
    def evaluated_model(self) -> nn.Module:
        """What evaluations and predictions use: the averaged weights where asked for and begun, else the model."""
        return evaluated_model(self.setup)

    @property
    def _here(self) -> World:
        """This process among those that train together."""
        return World() if self.choices.parallel is None else world()

    @cached_property
    def setup(self) -> Setup:
        made = set_up(self.choices)
        if not made.world.alone:
            begin_alike(self.model, made.loss)
        return made

    @cached_property
    def _session(self) -> Session:
        return Session(self.setup, lambda: self.keep)

    def _run(self, train: Any, val: Any = None, **how: Any) -> Run:
        self._session.run = make_run(self.setup, train, val, asked=self._session.asked, **how)
        return self._session.run

    def _settings(self) -> dict[str, Any]:
        """What the trainer was given, in words, for ``run.json``."""
        return {name: in_words(value) for name, value in vars(self.choices).items() if name != "model"}
