"""Averages of weights equal their formulas; BatchNorm statistics equal the data's."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from trueloop import optim
from trueloop.errors import ArgumentError, DataError


def a_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()


def walk(model: nn.Module, steps: int) -> list[dict[str, Tensor]]:
    """The model's state after each of some random moves."""
    generator = torch.Generator().manual_seed(0)
    states = []
    for step in range(steps):
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
            else:
                value.fill_(step + 1)
        states.append(copy.deepcopy(model.state_dict()))
    return states


def averaged(average: optim.Average, model: nn.Module, states: list[dict[str, Tensor]]) -> optim.Averaged:
    shadow = average.begin(model)
    for state in states:
        model.load_state_dict(state)
        shadow.update_parameters(model)
    return shadow


def test_ema_equals_its_formula() -> None:
    model = a_model()
    states = walk(model, 20)
    got = averaged(optim.ema(0.9), model, states).module.state_dict()
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        expected = states[0][name]
        for state in states[1:]:
            expected = 0.9 * expected + 0.1 * state[name]
        torch.testing.assert_close(got[name], expected, rtol=0, atol=1e-12)
    assert int(got["1.num_batches_tracked"]) == 20  # counts are copied


def test_swa_is_the_plain_mean() -> None:
    model = a_model()
    states = walk(model, 20)
    got = averaged(optim.swa(), model, states).module.state_dict()
    for name in ("0.weight", "1.running_var"):
        torch.testing.assert_close(got[name], torch.stack([s[name] for s in states]).mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("average", "theirs"),
    [
        (optim.ema(0.99), get_ema_multi_avg_fn(0.99)),  # type: ignore[no-untyped-call]
        (optim.swa(), get_swa_multi_avg_fn()),  # type: ignore[no-untyped-call]
    ],
)
def test_it_equals_torchs_averaged_model(average: optim.Average, theirs: Callable[..., None]) -> None:
    model = nn.Linear(3, 2)
    reference = AveragedModel(model, multi_avg_fn=theirs)
    states = walk(model, 10)
    ours = averaged(average, model, states)
    for state in states:
        model.load_state_dict(state)
        reference.update_parameters(model)
    assert isinstance(ours, AveragedModel)
    state = ours.state_dict()
    state.pop("_extra_state")  # what torch's own has not
    torch.testing.assert_close(state, reference.state_dict(), rtol=1e-6, atol=1e-7)


def test_the_model_itself_is_not_touched() -> None:
    model = a_model()
    states = walk(model, 3)
    averaged(optim.ema(0.5), model, states)
    assert all(torch.equal(value, states[-1][name]) for name, value in model.state_dict().items())


def test_an_average_that_is_saved_and_loaded_goes_on() -> None:
    model = a_model()
    states = walk(model, 6)
    whole = averaged(optim.swa(), model, states)
    first = averaged(optim.swa(), model, states[:3])
    resumed = optim.swa().begin(model)
    resumed.load_state_dict(first.state_dict())
    for state in states[3:]:
        model.load_state_dict(state)
        resumed.update_parameters(model)
    expected, got = whole.state_dict(), resumed.state_dict()
    assert got.pop("_extra_state") == expected.pop("_extra_state")
    assert all(torch.equal(value, expected[name]) for name, value in got.items())


def test_an_update_reads_no_value() -> None:
    class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.count += func is torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    model = a_model()
    shadow = optim.ema().begin(model)
    with Reads() as reads:  # type: ignore[no-untyped-call]
        shadow.update_parameters(model)
        shadow.update_parameters(model)
    assert reads.count == 0
    with Reads() as reads:  # type: ignore[no-untyped-call]
        AveragedModel(model).update_parameters(model)
    assert reads.count > 0  # torch's does: the test can see it


def test_when_swa_is_due() -> None:
    def due(average: optim.Average) -> list[int]:
        return [step for step in range(1, 11) if average.due(step, 10)]

    assert due(optim.ema()) == list(range(1, 11))
    assert due(optim.swa()) == [8, 9, 10]
    assert due(optim.swa(1.0)) == [10]
    assert due(optim.swa(0.0, every_steps=5)) == [5, 10]
    assert due(optim.swa(start_step=4, every_steps=3)) == [4, 7, 10]
    assert optim.swa(start_step=4).due(4)  # the length of the run is not needed


def test_a_fraction_of_an_unknown_length() -> None:
    with pytest.raises(ArgumentError, match=r"fraction of the run \(0.75\), .* give start_step"):
        optim.swa().due(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.ema(1.0), "at least 0 and less than 1, got decay=1.0"),
        (lambda: optim.ema(-0.1), "got decay=-0.1"),
        (lambda: optim.ema(float("nan")), "got decay=nan"),
        (lambda: optim.swa(100), "fraction of the run, from 0 to 1, got start=100; .* start_step"),
        (lambda: optim.swa(start_step=-1), "start_step must be 0 or more, got start_step=-1"),
        (lambda: optim.swa(every_steps=0), "every_steps must be 1 or more, got every_steps=0"),
    ],
)
def test_a_setting_out_of_range(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


@given(some.lists(some.integers(1, 7), min_size=1, max_size=6), some.integers(0, 99))
def test_batchnorm_statistics_are_those_of_the_whole_data_whatever_the_batches(sizes: list[int], seed: int) -> None:
    data = torch.randn(sum(sizes), 3, 2, 2, generator=torch.Generator().manual_seed(seed)) * 5 + 100
    norm = nn.BatchNorm2d(3)
    optim.recompute_batchnorm(norm, torch.split(data, sizes))
    expected = data.double().transpose(0, 1).flatten(1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean.double(), expected.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_var.double(), expected.var(1), rtol=1e-6, atol=0)
    assert int(norm.get_buffer("num_batches_tracked")) == len(sizes)


def test_deeper_layers_equal_torchs_update_bn_on_one_batch() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.BatchNorm1d(2)).double()
    reference = copy.deepcopy(model)
    x = torch.randn(64, 3, dtype=torch.float64)
    optim.recompute_batchnorm(model, [(x, torch.zeros(64))])
    torch.optim.swa_utils.update_bn([(x, torch.zeros(64))], reference)
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, reference.get_buffer(name), rtol=1e-12, atol=1e-12)


def test_a_last_batch_of_one_sample() -> None:
    x = torch.randn(9, 3)
    norm = nn.BatchNorm1d(3)
    optim.recompute_batchnorm(norm, torch.split(x, 4))
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, x.mean(0))


def test_dropout_is_off_no_random_number_is_drawn_and_every_mode_comes_back() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Dropout(0.1))
    model[2].eval()
    x, state = torch.randn(16, 3), torch.get_rng_state()
    optim.recompute_batchnorm(model, [x])
    torch.testing.assert_close(model[1].running_mean, x.mean(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert not model[1]._forward_pre_hooks


def test_modes_and_hooks_come_back_after_an_error() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(DataError, match=r"got dict; say how the model is called with forward="):
        optim.recompute_batchnorm(model, [{"x": torch.zeros(4, 3)}])
    assert model[0].training
    assert not model[0]._forward_pre_hooks


def test_forward_says_how_the_model_is_called() -> None:
    norm, x = nn.BatchNorm1d(3), torch.randn(8, 3)
    optim.recompute_batchnorm(norm, [{"x": x}], forward=lambda model, batch: model(batch["x"]))
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, x.mean(0))


def test_without_batchnorm_no_batch_is_fetched() -> None:
    batches = iter([torch.zeros(4, 2)])
    optim.recompute_batchnorm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), batches)
    assert len(list(batches)) == 1


def test_no_batches() -> None:
    with pytest.raises(DataError, match="at least one batch, got none"):
        optim.recompute_batchnorm(nn.BatchNorm1d(2), [])
