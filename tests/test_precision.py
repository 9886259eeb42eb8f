"""fp32, bf16, fp16, memory format: what is computed in what, and what is said about it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trueloop as tl
from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.precision import gradient_scaler, lay_out, precision
from trueloop.testing import classification, mlp, regression

CPU = torch.device("cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.convolution(x).relu().mean((2, 3)))
        return output


def images() -> tuple[Tensor, Tensor]:
    return torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4


@pytest.mark.parametrize("name", DTYPES)
def test_every_forward_pass_is_in_it_and_weights_stay_fp32(name: str) -> None:
    """Training, the first step too, and evaluation and prediction."""
    model = mlp(outputs=4)
    seen: list[torch.dtype] = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.01), precision=name)
    data = classification(12)
    trainer.fit(data, data, epochs=2, batch_size=4, progress=False)
    trainer.evaluate(data)
    trainer.predict(data)
    assert set(seen) == {DTYPES[name]}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", DTYPES)
def test_the_plan_says_the_precision_and_why_and_the_ritual_shows_it(name: str) -> None:
    plan = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1), precision=name, clip_norm=1.0).plan(
        regression(8), epochs=1, batch_size=4
    )
    assert plan.precision.startswith(f"{name}: ")
    parts = [part.split()[0] for part in plan.ritual]
    assert ("unscale" in parts) == (name == "fp16")
    assert plan.ritual[0] == ("forward" if name == "fp32" else f"forward in {name}")
    if name == "fp16":
        assert parts.index("backward") < parts.index("unscale") < parts.index("clip")


def test_bf16_says_whether_it_is_native_here() -> None:
    able = torch.cpu.get_capabilities()
    native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    assert ("NOT native" in precision("bf16", CPU).reason) != native


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown precision 'bf61'; did you mean 'bf16'"):
        tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1), precision="bf61").plan(
            regression(8), epochs=1, batch_size=4
        )
    with pytest.raises(UnknownNameError, match="unknown memory_format 'channel_last'; did you mean 'channels_last'"):
        lay_out(Images(), "channel_last")


def test_only_fp16_has_a_scaler_and_lbfgs_cannot_have_one() -> None:
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    for name in DTYPES:
        assert (gradient_scaler(precision(name, CPU), CPU, sgd) is not None) == (name == "fp16")
    lbfgs = torch.optim.LBFGS([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ArgumentError, match="precision='fp16' scales gradients, which LBFGS's closure cannot"):
        gradient_scaler(precision("fp16", CPU), CPU, lbfgs)


def test_channels_last_lays_out_weights_and_trains_to_the_same_numbers() -> None:
    models = []
    for memory_format in (None, "contiguous", "channels_last"):
        model = Images()
        trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1), memory_format=memory_format)
        trainer.fit(images(), epochs=2, batch_size=4, shuffle=False, progress=False)
        is_last = model.convolution.weight.is_contiguous(memory_format=torch.channels_last)
        assert is_last == (memory_format == "channels_last")
        models.append(model)
    for model in models[1:]:
        for one, other in zip(model.parameters(), models[0].parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_memory_format_is_said_with_its_reason() -> None:
    assert lay_out(Images(), None) == "as the model is"
    assert lay_out(Images(), "channels_last").startswith("channels_last: convolutions read")
    assert lay_out(mlp(), "channels_last") == "channels_last: no effect, the model has no 4-D weights"
    plan = tl.Trainer(Images(), nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1), memory_format="channels_last").plan(
        images(), epochs=1, batch_size=4
    )
    assert plan.memory.startswith("channels_last: ")


def test_channels_last_goes_on_from_a_first_convolution_of_one_channel() -> None:
    """Weights with one input channel count as both layouts; by their strides the output's layout is chosen."""
    model = nn.Conv2d(1, 8, 3)
    lay_out(model, "channels_last")
    assert model.weight.stride() == (9, 1, 3, 1)
    assert model(torch.randn(4, 1, 9, 9)).is_contiguous(memory_format=torch.channels_last)
