"""What goes on in a trainer: a run of ``train``, or a loop of the user's own; how it is saved and gone on with.

Whether weights lie whole on one process or in parts on several (FSDP) is decided here, and nowhere else in what is
saved: rank 0 then has all processes do it (``parallel/gather.py``).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueloop import state
from trueloop.checkpoint import store, weights
from trueloop.checkpoint.find import Origin, find, has_checkpoints
from trueloop.checkpoint.layout import FOLDER
from trueloop.checkpoint.resume import Parts, capture, check, check_kept, restore, restore_model
from trueloop.checkpoint.rngs import set_rngs_to
from trueloop.checkpoint.saving import Saver, Saving, fresh_copies, snapshot_of
from trueloop.checkpoint.signals import Asked
from trueloop.errors import ArgumentError, CheckpointError, DataError
from trueloop.inference import evaluated_model
from trueloop.loop import Events, Run
from trueloop.observers.run_folder import start_over
from trueloop.own_loop import OwnLoop
from trueloop.parallel.failing import by_the_first
from trueloop.parallel.gather import Together, whole_weights
from trueloop.parallel.reduce import of_the_first
from trueloop.parallel.ritual import alike_again
from trueloop.setup import Setup, begin_average

if TYPE_CHECKING:
    from trueloop.checkpoint.shards import Empty
    from trueloop.parallel.shards import Shards

_HOLD, _WRITE, _GATHER = range(3)
"""What rank 0 has all processes do (``Session._together``)."""


class Session:
    """What a trainer is in the middle of.

    Args:
        setup: the trainer's.
        keep: asked for state of the user's own, by name: the user may give another dict at any time.

    Attributes:
        run: of ``train``, which goes on or went on last; None in a loop of the user's own.
        own: that loop.
        found: the checkpoint that the next run goes on from.
        observers: of the run that goes on: what they remember is saved with it.
        asked: what signals ask of the run that goes on; None where it saves nothing.
    """

    def __init__(self, setup: Setup, keep: Callable[[], Mapping[str, Any]]) -> None:
        self.setup = setup
        self.own = OwnLoop(setup, self._own_begins)
        self.run: Run | None = None
        self.found: Origin | None = None
        self.observers: Sequence[object] = ()
        self.asked: Asked | None = None
        self._keep = keep

    @property
    def step(self) -> int:
        """See ``Trainer.step``."""
        if self.found is not None:
            return self.found.entry.step
        return self.own.step if self.run is None else self.run.ritual.step

    @property
    def parts(self) -> Parts:
        """All that holds state."""
        return state.parts(self.setup, self.run, self.own, self.observers, self._keep())

    # --- saving ----------------------------------------------------------------------------------------------------

    def saver(self, out: Path, saving: Saving, asked: Asked) -> Saver:
        """Who makes a run's checkpoints, on rank 0."""
        return Saver(
            out,
            saving,
            self._capture_by_all,
            unfit=self._unfit,
            asked=asked,
            weights=self._names,
            shards=self._shards_by_all,
        )

    @contextlib.contextmanager
    def watched_by(self, observers: Sequence[object], asked: Asked | None) -> Iterator[None]:
        """Inside, a run goes on with these observers; and with a folder to save in, where signals may ask for it."""
        self.observers, self.asked = observers, asked
        try:
            yield
        finally:
            self.observers, self.asked = (), None

    @contextlib.contextmanager
    def saved_by_all(self, events: Events, asked: Asked) -> Iterator[Events]:
        """The same events; while one of them is out, rank 0 may have all processes save what lies in parts."""
        if not self.setup.is_cut_up:
            yield events
            return
        shards = self._shards  # made by all processes, at the same place
        try:
            yield self._together.between(events, asked)
        finally:
            shards.wait()

    def save(self, folder: Path) -> Path:
        """See ``Trainer.save``."""
        check_kept(self._keep())
        captured = self.capture()
        if captured is None:
            raise ArgumentError("nothing has happened since the resume: the checkpoint that it came from is the state")
        place = self.own.place if self.run is None else self.run.place
        snapshot = snapshot_of(captured, fresh_copies(), self.step, place.epoch, "asked for")
        shards = self._shards.take_turn(snapshot) if self.setup.is_cut_up else None

        def write() -> Path:
            with contextlib.nullcontext() if shards is None else contextlib.closing(shards):
                return store.write(folder / FOLDER, snapshot, shards=shards)

        return write() if self.setup.world.alone else Path(of_the_first(by_the_first(write)))

    def capture(self) -> dict[str, dict[str, Any]] | None:
        """The state as it is; None where it has not moved since it was read from a checkpoint."""
        run = self.run
        if self.found is not None or (run is not None and run.resumed is not None):
            return None
        if run is not None and run.latch is not None:
            run.latch.check(run.place.epoch, run.ritual.step)  # a NaN on a device, not read yet: these steps are void
        with alike_again():  # saved in the body of a loop of the user's own
            captured = capture(self.parts)
        if not self.setup.is_cut_up:
            return captured
        from trueloop.parallel.shards import in_parts

        return in_parts(captured)

    def write_weights(self, file: Path) -> None:
        """Writes the weights that evaluations use, whole; in a run of parts, while an event is out."""
        if not self.setup.is_cut_up:
            weights.save_weights(evaluated_model(self.setup), file)
        elif self._together.listening:  # a Ctrl-C in the middle of a step leaves nobody to ask
            weights.write_tensors(self._together.do(_GATHER), file)

    def _capture_by_all(self) -> dict[str, dict[str, Any]] | None:
        return self._together.do(_HOLD) if self.setup.is_cut_up else self.capture()

    def _shards_by_all(self, snapshot: store.Snapshot) -> store.WriteShards | None:
        return self._together.do(_WRITE, snapshot) if self.setup.is_cut_up else None

    def _unfit(self) -> str | None:
        if self.setup.is_cut_up:
            return "it left a step, and the weights lie in parts on several processes"
        return state.unfit(self.setup.choices.model, self.run)

    @cached_property
    def _together(self) -> Together:
        """What the weights' parts are needed for, on all processes: ``_HOLD``, ``_WRITE`` and ``_GATHER``."""
        return Together(
            lambda: self._shards.hold(self.capture()),
            lambda *snapshot: self._shards.take_turn(*snapshot),
            lambda: whole_weights(evaluated_model(self.setup)),
        )

    @cached_property
    def _shards(self) -> Shards:
        from trueloop.parallel.shards import Shards

        return Shards(self._names)

    @property
    def _names(self) -> list[str]:
        return [name for name, _ in self.setup.choices.model.named_parameters()]

    # --- going on --------------------------------------------------------------------------------------------------

    def find(self, resume: Path | str, out: Path | None) -> None:
        """Finds what to go on from; for "auto" there may be nothing yet."""
        if resume != "auto":
            self.seek(resume)
        elif out is None:
            raise ArgumentError("resume='auto' goes on in the run's folder: give out=…")
        elif has_checkpoints(out):
            self.seek(out)
        elif out.exists():
            start_over(out)

    def seek(self, folder: Path | str, step: int | None = None) -> None:
        """Goes back to a checkpoint of ``folder``; see ``Trainer.resume``."""
        found = find(folder, step, self._empty)
        for passed in found.passed:
            warnings.warn(passed, stacklevel=4)
        self._go_back(found)

    def follow(self) -> None:
        """Every process goes on from the checkpoint that rank 0 has found."""
        if self.setup.world.alone:
            return
        own = None if self.found is None else str(self.found.entry.path)
        where = of_the_first(own)
        if where is not None and where != own:
            self._go_back(find(where, empty=self._empty, verified=True))

    def _go_back(self, found: Origin) -> None:
        setup = self.setup
        model = setup.choices.model
        try:
            check(model, setup.loss, setup.optimizers, self._keep(), found.trees)
        except (CheckpointError, DataError) as error:
            raise type(error)(str(error), file=found.entry.path) from error
        restore_model(model, found.trees)
        begin_average(setup)
        if setup.averaged is not None and found.state["averaged"] is not None:
            setup.averaged.load_state_dict(found.state["averaged"])
        set_rngs_to(found.state["rngs"])
        self.own.go_back(found.state["place"])
        self.run, self.found = None, found

    def _own_begins(self, fetches: bool) -> Callable[[], None] | None:
        """Puts a loop of the user's own where the checkpoint stands; gives the last act.

        Where ``update`` begins it, a forward pass has been made by then, with the weights that ``seek`` put in place:
        they, and the RNGs, are left alone.
        """
        found, self.found = self.found, None
        if found is None:
            return None
        lines = restore(self.parts, found.trees, weights=fetches)
        for line in lines if self.setup.world.first else ():
            warnings.warn(f"resumed: {line}", stacklevel=2)
        return (lambda: state.last_act(found, state.generators_of(self.setup))) if fetches else None

    @property
    def _empty(self) -> Empty | None:
        """Memory for what a checkpoint holds in parts: as the model is cut up, if it is."""
        if not self.setup.is_cut_up:
            return None
        from trueloop.parallel.shards import empty

        return empty
