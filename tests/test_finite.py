"""A NaN never reaches the weights, and the error says where it came from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trueloop as tl
from trueloop.errors import NonFiniteError
from trueloop.finite import Latch, NotFinite, bad_samples, check, first_bad_module
from trueloop.testing import Recorder, mlp, regression

NAN, INF = float("nan"), float("inf")


class BreaksAt(nn.Module):
    """Its middle layer gives Inf from the n-th call on."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
        self.middle = Breaking(call)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.middle(self.first(x)))
        return output


class Breaking(nn.Module):
    def __init__(self, call: int) -> None:
        super().__init__()
        self.call, self.calls = call, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x if self.calls < self.call else x * INF


def states(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_the_step_and_the_first_bad_module_are_named_and_the_weights_are_those_before(
    optimizer: str, accumulate: int
) -> None:
    model, record = BreaksAt(call=3 * accumulate), Recorder()
    trainer = tl.Trainer(
        model,
        nn.MSELoss(),
        getattr(tl.optim, optimizer)(lr=0.01),
        accumulate=accumulate,
        schedule=tl.schedules.linear(),
        average=tl.optim.ema(0.5),
    )
    kept: list[Tensor] = []

    def keep(event: tl.Event) -> None:
        if isinstance(event, tl.StepEnded):
            kept[:] = states(model)

    with pytest.raises(
        NonFiniteError, match=r"not finite; the first module whose output is not is middle \(Breaking\)"
    ) as caught:
        trainer.fit(
            regression(60), epochs=1, batch_size=4, shuffle=False, observers=[record, keep], progress=False
        )  # fmt: skip
    assert (caught.value.step, caught.value.module) == (2, "middle (Breaking)")
    assert "the weights are those before this step" in str(caught.value)
    assert len(record.of(tl.StepEnded)) == 2
    assert all(torch.equal(now, then) for now, then in zip(states(model), kept, strict=True))
    assert record.ended.reason.startswith("failed: NonFiniteError")


def test_bad_data_is_named_by_its_samples() -> None:
    x, y = regression(12)
    x[6, 1] = NAN
    with pytest.raises(NonFiniteError, match=r"NaN or Inf in samples 6 of the data; .*clean the data \(step 1\)"):
        tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1)).fit(
            (x, y), epochs=1, batch_size=4, shuffle=False, progress=False
        )


def test_a_loss_function_that_breaks_by_itself_is_told_from_a_model_that_does() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        output: Tensor = model(batch[0])
        return (output * 0).log().mean()

    with pytest.raises(NonFiniteError, match="every module's output is: the loss function itself") as caught:
        tl.Trainer(mlp(), loss, tl.optim.sgd(lr=0.1)).fit(regression(8), epochs=1, batch_size=4, progress=False)
    assert caught.value.module is None


def test_a_window_whose_labels_are_all_ignored_has_no_mean() -> None:
    x, _ = regression(8)
    y = torch.full((8,), -100)
    with pytest.raises(NonFiniteError, match="all targets ignored"):
        tl.Trainer(mlp(outputs=4), nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1), accumulate=2).fit(
            (x, y), epochs=1, batch_size=4, progress=False
        )


@pytest.mark.parametrize("value", [0.0, -3.5, 1e38, 5e-324])
def test_finite_losses_pass(value: float) -> None:
    check(torch.tensor(value))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_losses_that_are_not_do_not(value: float, dtype: torch.dtype) -> None:
    with pytest.raises(NotFinite):
        check(torch.tensor(value, dtype=dtype))


def test_looking_for_the_module_changes_neither_buffers_nor_the_rng() -> None:
    model = mlp(norm=True, dropout=0.5)
    model[-1].register_forward_hook(lambda module, inputs, output: output * NAN)
    buffers, rng = [b.clone() for b in model.buffers()], torch.get_rng_state()
    assert first_bad_module(model, lambda: model(torch.randn(4, 3, generator=torch.Generator()))) == "4 (Linear)"
    assert all(torch.equal(now, then) for now, then in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(len(module._forward_hooks) == (module is model[-1]) for module in model.modules())


def test_first_in_the_order_of_execution_and_nested_outputs_are_looked_into() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"fine": x, "broken": (x, [x * NAN])}

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.later, self.first = nn.Identity(), Pair()

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.later(self.first(x)["broken"][1][0])
            return output

    model = Chain()
    assert first_bad_module(model, lambda: model(torch.ones(2))) == "first (Pair)"
    assert first_bad_module(nn.Identity(), lambda: None) is None


def test_samples_of_nested_batches() -> None:
    x = torch.zeros(5, 2)
    x[4, 1] = INF
    assert bad_samples({"x": (x, torch.tensor([0.0, NAN, 0, 0, 0])), "n": torch.arange(5)}) == [1, 4]
    assert bad_samples((torch.zeros(5), "text")) == []


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_latch_keeps_a_fused_optimizer_from_moving_and_reads_nothing_before_it_is_asked(kind: Any) -> None:
    """What guards on an accelerator, tried on the CPU, whose fused kernels look at the same flag."""
    from trueloop.testing import reads_counted

    weight = nn.Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.1, fused=True)
    latch = Latch(optimizer, torch.device("cpu"))
    assert latch.protects
    latch.attach()
    values = []
    with reads_counted() as reads:
        for loss in (1.0, NAN, 1.0):
            latch(torch.tensor(loss))
            weight.grad = torch.ones(3)
            optimizer.step()
            values.append(weight.detach().clone())
    assert not any(reads.values())
    with pytest.raises(NonFiniteError, match="the weights are those before it"):
        latch.check(epoch=0, step=2)
    assert not torch.equal(values[0], torch.ones(3))
    assert torch.equal(values[1], values[0])
    assert torch.equal(values[2], values[0]), "once up, it stays up"
    latch.detach()
    optimizer.step()
    assert not torch.equal(weight.detach(), values[0]), "the optimizer is the user's again"
    assert not hasattr(optimizer, "found_inf")


def test_the_latch_says_that_a_plain_optimizer_is_not_held_back() -> None:
    latch = Latch(torch.optim.RMSprop([nn.Parameter(torch.ones(1))]), torch.device("cpu"))
    assert not latch.protects
    latch(torch.tensor(2.0))
    latch.check(epoch=0, step=0)
    latch(torch.tensor(INF))
    with pytest.raises(NonFiniteError, match="have been updated with it"):
        latch.check(epoch=0, step=1)
