"""From what the user gave to what the loop needs: optimizers, schedules, devices, compiling."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import trueloop as tl
from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.setup import compiled
from trueloop.testing import Recorder, Weight, mlp, regression, same_bits

CPU = torch.device("cpu")


def planned(model: nn.Module | None = None, optimizer: Any = None, **options: Any) -> tl.Plan:
    trainer = tl.Trainer(model or mlp(), nn.MSELoss(), optimizer or tl.optim.sgd(lr=0.1), **options)
    return trainer.plan(regression(20), epochs=2, batch_size=4)


def test_weights_without_memory_are_named() -> None:
    with pytest.raises(ArgumentError, match=r"on the meta device, without memory \(weight\)"):
        planned(nn.Linear(2, 1, device="meta"))


# --- optimizers -----------------------------------------------------------------------------------------------------


def test_no_trainable_parameter() -> None:
    frozen = mlp().requires_grad_(False)
    for model in (frozen, nn.Identity()):
        for optimizer in (tl.optim.sgd(lr=0.1), torch.optim.SGD(mlp().parameters())):
            with pytest.raises(ArgumentError, match=r"at least one trainable parameter, got none.*requires_grad_"):
                planned(model, optimizer)


def test_an_optimizer_that_holds_none_of_the_models_parameters() -> None:
    with pytest.raises(
        ArgumentError, match=r"holds none of the model's parameters \(it holds 4 others\).*Make the optimizer last"
    ):
        planned(mlp(), torch.optim.SGD(mlp().parameters()))


def test_parameters_that_no_optimizer_holds_are_noted() -> None:
    model = mlp()
    plan = planned(model, torch.optim.SGD(model[0].parameters()))
    assert any("2 trainable tensors are in no optimizer and will not move: 2.weight, 2.bias" in n for n in plan.notes)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.Adam, r"got the class Adam; write trueloop.optim.adam\(lr=…\)"),
        (lambda model: "adam", "must be a torch.optim.Optimizer or a factory of one, got 'adam'"),
        ({}, "got an empty dict"),
        ({"hed": tl.optim.sgd(lr=0.1)}, "trains the submodule of that name, which the model has not; it has: 0, 1, 2"),
    ],
)
def test_what_is_no_optimizer(optimizer: Any, message: str) -> None:
    trainer = tl.Trainer(mlp(), nn.MSELoss(), optimizer)
    with pytest.raises(ArgumentError, match=message):
        trainer.plan(regression(20), epochs=1, batch_size=4)


def test_a_name_for_an_optimizer_is_a_word_and_not_an_optimizer() -> None:
    with pytest.raises(ArgumentError, match="got 'adam'"):
        planned(mlp(), "adam")


def test_fit_has_one_optimizer() -> None:
    optimizers = {"0": tl.optim.sgd(lr=0.1), "2": tl.optim.sgd(lr=0.1)}
    trainer = tl.Trainer(mlp(), nn.MSELoss(), optimizers)
    with pytest.raises(
        ArgumentError, match="one loss and one optimizer, got optimizers 0, 2; write a loop of your own"
    ):
        trainer.fit(regression(8), epochs=1, batch_size=4, progress=False)


def test_one_named_optimizer_is_fine_for_fit() -> None:
    model = mlp()
    tl.Trainer(model, nn.MSELoss(), {"2": tl.optim.sgd(lr=0.1)}).fit(
        regression(8), epochs=1, batch_size=4, progress=False
    )
    assert same_bits(model[0], mlp()[0])
    assert not same_bits(model[2], mlp()[2])


# --- schedules ------------------------------------------------------------------------------------------------------


def test_a_scheduler_may_be_given_as_a_class_to_be_made_for_the_optimizer() -> None:
    record = Recorder()
    trainer = tl.Trainer(
        Weight(), nn.MSELoss(), tl.optim.sgd(lr=0.1), schedule=partial(lr_scheduler.ExponentialLR, gamma=0.5)
    )
    trainer.fit((torch.ones(4), torch.ones(4)), epochs=3, batch_size=2, observers=[record], progress=False)
    assert [step.lr for step in record.of(tl.StepEnded)] == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]


@pytest.mark.parametrize("kind", [lr_scheduler.LinearLR, lr_scheduler.ConstantLR, lr_scheduler.LambdaLR])
def test_asking_for_the_plan_changes_nothing_of_the_run(kind: Any) -> None:
    schedule = partial(kind, **({"lr_lambda": lambda epoch: 0.5**epoch} if kind is lr_scheduler.LambdaLR else {}))
    rates, models = [], []
    for asks in (0, 2):
        model, record = mlp(norm=True, dropout=0.3), Recorder()
        trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.1), schedule=schedule)
        torch.manual_seed(0)
        for _ in range(asks):
            trainer.plan(regression(20), epochs=2, batch_size=4)
        trainer.fit(regression(20), epochs=2, batch_size=4, seed=None, observers=[record], progress=False)
        rates.append([step.lr for step in record.of(tl.StepEnded)])
        models.append(model)
    assert rates[0] == rates[1]
    assert same_bits(*models)


def test_a_scheduler_of_another_optimizer_would_do_nothing_and_is_refused() -> None:
    other = torch.optim.SGD(mlp().parameters(), lr=0.1)
    for schedule in (
        lr_scheduler.StepLR(other, 1),
        tl.schedules.stepped(lr_scheduler.StepLR(other, 1), every="step"),
    ):
        with pytest.raises(ArgumentError, match="another optimizer"):
            planned(mlp(), tl.optim.sgd(lr=0.1), schedule=schedule)


@pytest.mark.parametrize("schedule", [0.5, "cosine"])
def test_what_is_no_schedule(schedule: Any) -> None:
    with pytest.raises(ArgumentError, match=f"schedule must be a function step -> multiplier.*got {schedule!r}"):
        planned(schedule=schedule)


def test_a_curve_over_a_stream_of_unknown_length_needs_a_number() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(zip(*regression(8), strict=True))

    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1), schedule=tl.schedules.cosine())
    with pytest.raises(ArgumentError, match=r"cosine is as long as the run.*give the run in steps=…"):
        trainer.plan(Stream(), epochs=2, batch_size=4)
    assert trainer.plan(Stream(), steps=6, batch_size=4).steps == 6
    result = trainer.fit(Stream(), steps=3, batch_size=4, progress=False)
    assert result.steps == 3


# --- the length of a run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["epochs", "steps"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True, "3"])
def test_lengths_out_of_range(name: str, value: Any) -> None:
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    with pytest.raises(ArgumentError, match=f"{name} must be a positive whole number, got {name}={value!r}") as caught:
        trainer.train(regression(8), batch_size=4, **{name: value})
    assert ("to only evaluate, call evaluate()" in str(caught.value)) == (value == 0 and value is not False)


@pytest.mark.parametrize("how", [{}, {"epochs": 2, "steps": 3}])
def test_a_length_is_epochs_or_steps(how: dict[str, Any]) -> None:
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    with pytest.raises(ArgumentError, match="epochs or as steps, one of them"):
        trainer.train(regression(8), batch_size=4, **how)


# --- devices and compiling ------------------------------------------------------------------------------------------


def test_the_device_is_chosen_with_a_reason() -> None:
    assert planned(device="cpu").device.startswith("cpu: as asked")
    assert ": " in planned().device


def test_a_device_that_is_not_here() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    with pytest.raises(ArgumentError, match="cuda"):
        planned(device="cuda")
    with pytest.raises((ArgumentError, UnknownNameError), match="quantum"):
        planned(device="quantum")


def test_without_a_compiler_it_is_said_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    model, record = mlp(), Recorder()
    trainer = tl.Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.01), compile=True)
    trainer.fit(regression(8), epochs=1, batch_size=4, seed=0, observers=[record], progress=False)
    (started,) = record.of(tl.RunStarted)
    assert started.plan.compiles is not None
    assert started.plan.compiles.startswith("NOT compiled: no C++ compiler found")
    assert "going on without" in str(started.plan)
    plain = mlp()
    tl.Trainer(plain, nn.MSELoss(), torch.optim.SGD(plain.parameters(), lr=0.01)).fit(
        regression(8), epochs=1, batch_size=4, seed=0, progress=False
    )
    assert same_bits(model, plain)


def test_the_compiler_that_is_named_is_the_one_that_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    compute, reason = compiled(len, CPU)
    assert compute is len
    assert "looked for no-such-compiler" in reason


def compiles_to_the_same_numbers() -> None:
    torch.compiler.reset()
    models = []
    for compile in (False, True):
        model, record = mlp(width=8), Recorder()
        ours = torch.optim.SGD(model.parameters(), lr=0.01)
        trainer = tl.Trainer(model, nn.MSELoss(), ours, compile=compile)
        torch._dynamo.utils.counters.clear()
        trainer.fit(regression(16), epochs=2, batch_size=4, shuffle=False, observers=[record], progress=False)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compile, "one graph, the first window's too"
        (started,) = record.of(tl.RunStarted)
        assert (started.plan.compiles or "").startswith("model and loss, by torch.compile" if compile else "")
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


needs_a_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no compiler here"
)


@needs_a_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own imports
def test_with_a_compiler_model_and_loss_are_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is run by torch's own ``eager`` backend: the C++ takes a minute, and is tried by the slow test."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiles_to_the_same_numbers()


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_with_a_compiler_model_and_loss_are_compiled_and_train_to_the_same_numbers() -> None:
    compiles_to_the_same_numbers()
