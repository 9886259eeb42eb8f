"""What a state dict of the weights does not say of a model, its loss and its average: frozen, resting, passing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trueloop as tl
from trueloop.checkpoint.modes import Modes, modes_of
from trueloop.checkpoint.weights import load_weights
from trueloop.errors import DataError
from trueloop.loop import Observer
from trueloop.testing import Recorder, mlp, regression, same_bits

Everything = Callable[[tl.Trainer], dict[str, Any]]


class BrokenOff(Exception):
    pass


def fit(trainer: tl.Trainer, out: Path, *observers: Observer, stop: int | None = None, **how: Any) -> Recorder:
    """8 steps in 2 epochs, gone on with if there is anything to go on from; or broken off."""
    record = Recorder(lambda event: isinstance(event, tl.StepEnded) and event.step == stop, BrokenOff())
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "seed": 5, "progress": False, **how}
    try:
        trainer.fit(
            regression(16), regression(6, seed=1), out=out, resume="auto", observers=[*observers, record], **settings
        )
    except BrokenOff:
        assert stop is not None
    return record


def notes(record: Recorder) -> list[str]:
    """What the plan of a resumed run says beside where it goes on, and what it says of any model in eval mode."""
    said = record.of(tl.RunStarted)[0].plan.notes[1:]
    return [note for note in said if note != "the model was in eval mode; it is put in train mode, all of it"]


# --- frozen weights, modules in eval mode ---------------------------------------------------------------------------

Change = Callable[[nn.Sequential], object]


def network() -> nn.Sequential:
    """Linear, BatchNorm, ReLU, Dropout, Linear."""
    return mlp(norm=True, dropout=0.3)


def made(model: nn.Module, loss: nn.Module | None = None, **settings: Any) -> tl.Trainer:
    """Its optimizer holds all weights, also those that are frozen."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return tl.Trainer(model, loss or nn.MSELoss(), optimizer, **settings)


def changes(model: nn.Sequential, change: Change, at: int) -> Observer:
    def observer(event: tl.Event) -> None:
        if isinstance(event, tl.StepEnded) and event.step == at:
            change(model)

    return observer


def as_it_is(model: nn.Sequential) -> None:
    pass


def freeze(model: nn.Sequential) -> None:
    model[0].requires_grad_(False)


def thaw(model: nn.Sequential) -> None:
    model[0].requires_grad_(True)


def rest(model: nn.Sequential) -> None:
    model[1].eval()


def wake(model: nn.Sequential) -> None:
    model[1].train()


@pytest.mark.parametrize(
    ("given", "change", "said"),
    [
        (as_it_is, freeze, ["as the run had done: 0.weight frozen, 0.bias frozen"]),
        (freeze, thaw, ["as the run had done: 0.weight thawed, 0.bias thawed"]),
        (as_it_is, rest, ["as the run had done: 1 in eval mode"]),
        (rest, wake, ["as the run had done: 1 in train mode"]),
        (lambda model: model.eval(), rest, ["as the run had done: 1 in eval mode"]),
        (lambda model: model.eval(), as_it_is, []),  # it is woken, as it was at the beginning
    ],
    ids=["freeze", "thaw", "rest", "wake", "rest what the run woke", "wake all"],
)
def test_what_the_run_did_to_its_model_is_done_again(
    given: Change, change: Change, said: list[str], folder: Path, everything: Everything
) -> None:
    def run(out: Path, stop: int | None = None) -> tuple[tl.Trainer, Recorder]:
        model = network()
        given(model)
        trainer = made(model)
        return trainer, fit(trainer, out, changes(model, change, at=3), stop=stop)

    whole, _ = run(folder / "whole")
    run(folder / "run", stop=5)
    resumed, record = run(folder / "run")
    assert modes_of(resumed.model) == modes_of(whole.model)
    assert everything(resumed) == everything(whole)
    assert notes(record) == said


@pytest.mark.parametrize(
    ("given", "now", "said"),
    [
        (as_it_is, freeze, ["frozen now, trained in the run: 0.weight, 0.bias"]),
        (freeze, thaw, ["trained now, frozen in the run: 0.weight, 0.bias"]),
        (as_it_is, rest, ["in eval mode now, in train mode in the run: 1"]),
        (rest, wake, ["in train mode now, in eval mode in the run: 1"]),
    ],
    ids=["freeze", "thaw", "rest", "wake"],
)
def test_what_the_user_changed_between_two_runs_stays_and_is_said(
    given: Change, now: Change, said: list[str], folder: Path
) -> None:
    first, model = network(), network()
    given(first)
    fit(made(first), folder / "run", stop=5)
    given(model)
    now(model)
    wanted = modes_of(model)
    record = fit(made(model), folder / "run")
    assert modes_of(model) == wanted
    assert notes(record) == said
    ours, theirs = model.state_dict(), first.state_dict()
    assert torch.equal(ours["0.weight"], theirs["0.weight"]) == (now is freeze)
    assert torch.equal(ours["1.running_mean"], theirs["1.running_mean"]) == (now is rest)


def test_a_model_given_in_eval_mode_is_woken_before_modes_are_put_back(folder: Path) -> None:
    first, model = network(), network()
    fit(made(first), folder / "run", changes(first, rest, at=3), stop=5)
    model.eval()
    fit(made(model), folder / "run")
    assert modes_of(model) == Modes((), ("1",))


def test_what_a_run_froze_stays_frozen_however_often_it_is_resumed(folder: Path) -> None:
    """What the first run did, the second one has from the checkpoint, and the third from that of the second."""
    for stop in (4, 6, None):
        model = network()
        fit(made(model), folder / "run", changes(model, freeze, at=3), stop=stop)
        assert modes_of(model) == Modes(("0.weight", "0.bias"), ())


# --- saved in the middle of an evaluation ---------------------------------------------------------------------------


def own_loop(trainer: tl.Trainer, seen: list[Modes], change: Change, save_to: Path | None = None) -> None:
    """Two epochs; in the first, ``change`` comes before the evaluation, and a checkpoint in the middle of it.

    For each batch of the evaluation there is another evaluation.
    """
    model = trainer.model
    assert isinstance(model, nn.Sequential)
    for epoch in trainer.epochs(2):
        for number, (x, y) in enumerate(trainer.batches(regression(16), batch_size=4, seed=5)):
            trainer.update(nn.functional.mse_loss(model(x), y))
            if epoch == 0 and number == 1:
                change(model)
            seen.append(modes_of(model))
        for number, (x, _) in enumerate(trainer.evaluating(regression(6, seed=1), batch_size=2)):
            model(x)
            for _ in trainer.evaluating(regression(2, seed=2)):
                if save_to is not None and (epoch, number) == (0, 1):
                    trainer.save(save_to)


@pytest.mark.parametrize(
    ("given", "change"), [(rest, as_it_is), (as_it_is, rest), (as_it_is, freeze)], ids=["given", "rest", "freeze"]
)
def test_a_checkpoint_made_while_the_model_is_evaluated_goes_on_in_its_modes(
    given: Change, change: Change, folder: Path
) -> None:
    whole, resumed, modes, modes_again = made(network()), made(network()), list[Modes](), list[Modes]()
    for trainer in (whole, resumed):
        given(trainer.model)  # type: ignore[arg-type]
    own_loop(whole, modes, change, folder)
    resumed.resume(folder)
    with warnings.catch_warnings(record=True, action="always") as said:
        own_loop(resumed, modes_again, change)
    assert [str(one.message).startswith("resumed: as the run had done") for one in said] == [True] * (
        modes[0] != modes[-1]
    )
    assert modes_again == modes[4:]
    assert same_bits(resumed.model, whole.model)


def test_after_an_evaluation_modes_are_those_that_the_model_is_in(folder: Path) -> None:
    trainer, again = made(network()), made(network())
    x, y = regression(16)
    for _ in trainer.evaluating((x, y)):
        pass
    rest(trainer.model)  # type: ignore[arg-type]
    trainer.update(nn.functional.mse_loss(trainer.model(x), y))
    trainer.save(folder)
    again.resume(folder)
    with pytest.warns(UserWarning, match="resumed: as the run had done: 1 in eval mode"):
        again.update(nn.functional.mse_loss(again.model(x), y))
    assert modes_of(again.model) == Modes((), ("1",))


def test_an_evaluation_by_hand_leaves_open_which_modules_would_train(folder: Path) -> None:
    """All rest then, and who of them would not is known to the user alone: each stays as it was given."""
    trainer, again = made(network()), made(network())
    x, y = regression(16)
    for each in (trainer, again):
        rest(each.model)  # type: ignore[arg-type]
    trainer.update(nn.functional.mse_loss(trainer.model(x), y))
    trainer.model.eval()
    trainer.save(folder)
    again.resume(folder)
    again.update(nn.functional.mse_loss(again.model(x), y))
    assert modes_of(again.model) == Modes((), ("1",))


def test_who_updates_a_model_in_eval_mode_after_a_resume_is_told(folder: Path) -> None:
    trainer, again = made(mlp()), made(mlp())
    x, y = regression(16)
    trainer.update(nn.functional.mse_loss(trainer.model(x), y))
    trainer.save(folder)
    again.resume(folder)
    again.model.eval()
    with pytest.warns(UserWarning, match=r"in eval mode now, in train mode in the run: the model, 0, 1 … \(4 in all\)"):
        again.update(nn.functional.mse_loss(again.model(x), y))
    assert not again.model.training


# --- buffers that no state dict holds -------------------------------------------------------------------------------


class Remembers(nn.Module):
    """A mean of all that it has seen in training, in a buffer that passes; ``begins`` with it, ``then`` moves it on."""

    seen: Tensor | None

    def __init__(self, begins: Tensor | None, then: Callable[[Tensor | None, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.then = mlp(), then
        self.register_buffer("seen", begins, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.then(self.seen, x.detach())
        out: Tensor = self.body(x if self.seen is None else x - self.seen.float().mean(0))
        return out


def grows(seen: Tensor | None, x: Tensor) -> Tensor:
    return x if seen is None else torch.cat([seen, x])


def moves(seen: Tensor | None, x: Tensor) -> Tensor:
    return x.mean(0, keepdim=True) if seen is None else 0.9 * seen + 0.1 * x.mean(0, keepdim=True)


def moves_in_double(seen: Tensor | None, x: Tensor) -> Tensor:
    return moves(None if seen is None else seen.double(), x.double())


class Relative(nn.Module):
    """A loss relative to its own mean so far."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        loss = nn.functional.mse_loss(output, target)
        if torch.is_grad_enabled():
            self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss / (1 + self.mean)


PASSING: dict[str, Callable[[], tl.Trainer]] = {
    "grows": lambda: made(Remembers(torch.zeros(1, 3), grows)),
    "made by the first batch": lambda: made(Remembers(None, moves)),
    "of another dtype": lambda: made(Remembers(torch.zeros(1, 3), moves_in_double)),
    "of the loss": lambda: made(mlp(), Relative()),
    "of the average": lambda: made(Remembers(torch.zeros(1, 3), moves), average=tl.optim.ema(0.5)),
}


@pytest.mark.parametrize("name", PASSING)
def test_buffers_that_no_state_dict_holds_are_put_back(name: str, folder: Path, everything: Everything) -> None:
    whole, resumed = PASSING[name](), PASSING[name]()
    expected = fit(whole, folder / "whole", evaluate_every_steps=2).of(tl.EvalEnded)
    first = fit(PASSING[name](), folder / "run", evaluate_every_steps=2, stop=5).of(tl.EvalEnded)
    rest = fit(resumed, folder / "run", evaluate_every_steps=2).of(tl.EvalEnded)
    assert everything(resumed) == everything(whole)
    assert [event.metrics for event in (*first, *rest)] == [event.metrics for event in expected]


# --- weights of eight bits, and a loss that does not fit ------------------------------------------------------------


class Scaled(nn.Module):
    """Its inputs are scaled by weights in float8, which are not trained."""

    def __init__(self, dtype: torch.dtype, scale: float) -> None:
        super().__init__()
        self.body = mlp()
        self.scale = nn.Parameter(torch.full((3,), scale).to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x * self.scale.float())
        return out


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_weights_in_float8_are_saved_and_read(dtype: torch.dtype, folder: Path) -> None:
    whole, resumed = Scaled(dtype, 0.5), Scaled(dtype, 2.0)
    events = fit(made(whole), folder / "whole").events
    assert not [event for event in events if isinstance(event, tl.SaveFailed)]
    fit(made(Scaled(dtype, 0.5)), folder / "run", stop=5)
    fit(made(resumed), folder / "run")
    assert same_bits(resumed, whole)
    exported = Scaled(dtype, 2.0)
    assert load_weights(exported, folder / "run" / "model.safetensors") == []
    assert same_bits(exported, whole)


class PerOutput(nn.Module):
    """A loss with a weight of its own for each output."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(outputs))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return ((output - target).square() * (-self.log_variance).exp() + self.log_variance).mean()


@pytest.mark.parametrize("resume", [fit, lambda trainer, out: trainer.resume(out)], ids=["fit", "resume"])
def test_a_loss_of_another_shape_is_refused_before_anything_is_changed(
    resume: Callable[[tl.Trainer, Path], object], folder: Path, everything: Everything
) -> None:
    fit(made(mlp(), PerOutput(1)), folder / "run", stop=5)
    trainer = made(mlp(seed=1), PerOutput(2))
    before = everything(trainer)
    message = r"(?s)the loss is not the one of the checkpoint: .*log_variance .*\(2,\).*\(1,\)"
    with pytest.raises(DataError, match=message):
        resume(trainer, folder / "run")
    assert everything(trainer) == before
