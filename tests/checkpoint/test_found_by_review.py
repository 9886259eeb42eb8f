"""What reviewers found in saving and resuming: each first shown here, then mended."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import trueloop as tl
from trueloop.checkpoint.store import entries
from trueloop.loop import Observer
from trueloop.testing import regression, same_bits


class Broken(Exception):
    """What breaks a run off."""


def breaks_after(step: int) -> Observer:
    def observer(event: tl.Event) -> None:
        if isinstance(event, tl.StepEnded) and event.step == step:
            raise Broken

    return observer


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(24, 3, 6, 6, generator=generator), torch.arange(24) % 2


def convolutional(seed: int, accumulate: int = 1) -> tl.Trainer:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    return tl.Trainer(
        model,
        nn.CrossEntropyLoss(),
        tl.optim.adam(lr=0.01),
        memory_format="channels_last",
        accumulate=accumulate,
        average=tl.optim.ema(0.9),
    )


def test_the_optimizers_state_lies_as_the_weights_do(tmp_path: Path) -> None:
    """Fused kernels walk through both as they lie in memory; a checkpoint holds contiguous tensors."""
    whole = convolutional(0)
    whole.fit(images(), epochs=2, batch_size=4, seed=1, progress=False)
    with pytest.raises(Broken):
        convolutional(0).fit(
            images(), epochs=2, batch_size=4, seed=1, progress=False, out=tmp_path / "run", observers=[breaks_after(5)]
        )
    resumed = convolutional(7)
    resumed.fit(images(), epochs=2, batch_size=4, seed=1, progress=False, out=tmp_path / "run", resume="auto")
    assert same_bits(whole.model, resumed.model)
    assert whole.averaged is not None
    assert resumed.averaged is not None
    assert same_bits(whole.averaged, resumed.averaged)


def test_gradients_of_an_open_window_lie_as_the_weights_do(tmp_path: Path) -> None:
    def train(trainer: tl.Trainer, save_at: int | None = None) -> None:
        for _ in trainer.epochs(1):
            for number, (x, y) in enumerate(trainer.batches(images(), batch_size=4, shuffle=False)):
                trainer.update(nn.functional.cross_entropy(trainer.model(x), y))
                if number == save_at:
                    trainer.save(tmp_path)

    whole, resumed = convolutional(0, accumulate=3), convolutional(7, accumulate=3)
    train(whole, save_at=3)
    resumed.resume(tmp_path)
    train(resumed)
    assert same_bits(whole.model, resumed.model)


class FailsOnce(nn.Module):
    """Raises in one forward pass, and never again."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.body, self.calls, self.at = nn.Linear(3, 1), 0, at

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise Broken
        out: Tensor = self.body(x)
        return out


def test_a_window_that_an_exception_breaks_off_is_taken_anew(tmp_path: Path) -> None:
    def trained(at: int, resume: str | None = None) -> FailsOnce:
        torch.manual_seed(0)
        model = FailsOnce(at)
        trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.1), accumulate=4)
        out = tmp_path / "whole" if at < 0 else tmp_path / "run"
        trainer.fit(regression(24), epochs=1, batch_size=2, seed=1, progress=False, out=out, resume=resume)
        return model

    with pytest.raises(Broken):
        trained(at=7)  # the third microbatch of the second window
    assert same_bits(trained(at=0, resume="auto"), trained(at=-1))


def test_minutes_begin_anew_when_a_checkpoint_is_begun(tmp_path: Path) -> None:
    """And not when it has been written: or the next step would find it due again."""
    told: list[tl.Event] = []
    torch.manual_seed(0)
    trainer = tl.Trainer(nn.Linear(3, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    trainer.fit(
        regression(64),
        epochs=1,
        batch_size=1,
        progress=False,
        out=tmp_path / "run",
        saving=tl.Saving(every_minutes=0.2 / 60),
        observers=[slow, told.append],
    )
    at = [event.step for event in told if isinstance(event, tl.Saved) and "minutes" in event.why]
    assert len(at) >= 2
    assert all(later > earlier + 1 for earlier, later in itertools.pairwise(at)), at


def slow(event: tl.Event) -> None:
    if isinstance(event, tl.StepEnded):
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["checkpoints/mine", "checkpoints"])
def test_a_runs_folder_may_be_called_like_ours(name: str, tmp_path: Path) -> None:
    def fit(resume: str | None) -> tl.Result:
        trainer = tl.Trainer(nn.Linear(3, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1))
        return trainer.fit(regression(8), epochs=1, batch_size=2, progress=False, out=tmp_path / name, resume=resume)

    assert fit(None).steps == 4
    assert fit("auto").steps == 4
    tl.Trainer(nn.Linear(3, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1)).resume(tmp_path / name)


def evaluated_run(run: Path, observers: list[Observer], resume: str | None = None) -> None:
    torch.manual_seed(0)
    trainer = tl.Trainer(FailsOnce(0), nn.MSELoss(), tl.optim.sgd(lr=0.0))  # its first evaluation is its best
    trainer.fit(
        regression(8),
        regression(4),
        epochs=3,
        batch_size=2,
        seed=1,
        progress=False,
        out=run,
        resume=resume,
        saving=tl.Saving(every_epochs=1, best="loss", keep_last=1),
        observers=observers,
    )


def test_the_best_stays_the_best_when_its_step_is_saved_again_after_a_resume(tmp_path: Path) -> None:
    def breaks_at_the_evaluation(event: tl.Event) -> None:
        if isinstance(event, tl.EvalEnded):
            raise Broken

    run = tmp_path / "run"
    with pytest.raises(Broken):
        evaluated_run(run, [breaks_at_the_evaluation])
    with pytest.raises(Broken):
        evaluated_run(run, [breaks_after(5)], resume="auto")
    evaluated_run(run, [], resume="auto")
    (best,) = (entry for entry in entries(run / "checkpoints") if entry.step == 4)
    assert "loss" in best.metrics


def test_an_exact_checkpoint_is_not_replaced_by_one_that_is_not(tmp_path: Path) -> None:
    class FailsInTraining(FailsOnce):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                self.calls -= 1
            return super().forward(x)

    trainer = tl.Trainer(FailsInTraining(4), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    with pytest.raises(Broken):
        trainer.fit(
            regression(16),
            regression(2),
            epochs=1,
            batch_size=2,
            seed=1,
            progress=False,
            out=tmp_path / "run",
            save_every_steps=3,
            evaluate_every_steps=3,  # so that something has happened since the checkpoint
        )
    newest = entries(tmp_path / "run" / "checkpoints")[-1]
    assert (newest.step, newest.exact) == (3, None)
