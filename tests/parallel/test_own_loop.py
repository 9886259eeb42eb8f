"""A loop of one's own on several processes: the same curve as on one, and nothing to think of in its body."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import trueloop as tl
from trueloop.cli.main import main
from trueloop.errors import ArgumentError

Launch = Callable[..., Any]

SCRIPT = '''
import os, sys
import torch
from torch import nn
from torch.nn import functional
import trueloop as tl

saved, which, accumulate = sys.argv[1], sys.argv[2], int(sys.argv[3])
rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
torch.set_default_dtype(torch.float64)


def data(samples):
    generator = torch.Generator().manual_seed(samples)
    x = torch.randn(samples, 8, generator=generator)
    return x, torch.randint(0, 3, (samples,), generator=generator)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def curve(batch_size, samples=101, epochs=2, optimizer=tl.optim.sgd(lr=0.1, momentum=0.9), **options):
    trainer = tl.Trainer(model := mlp(), optimizer=optimizer, **options)
    losses = []
    for _ in trainer.epochs(epochs):
        for x, y in trainer.batches(data(samples), batch_size=batch_size, seed=1):
            event = trainer.update(functional.cross_entropy(model(x), y))
            losses += [] if event is None else [torch.stack([event.loss, torch.tensor(float(event.samples))])]
    kept = trainer.averaged or model
    return torch.cat([weights(model), weights(kept), torch.stack(losses).flatten()])


def tokens(accumulate, batch_size=20):
    trainer = tl.Trainer(model := mlp(), optimizer=tl.optim.adamw(lr=0.01), accumulate=accumulate)
    x, y = data(101)
    mask = (torch.arange(101) % 7 > 2).double()
    for x, y, m in trainer.batches((x, y, mask), batch_size=batch_size, seed=1):
        losses = functional.cross_entropy(model(x), y, reduction="none")
        trainer.update((losses * m).sum() / m.sum().clamp(min=1), count=m.sum())
    return weights(model)


class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.generator, self.judge = nn.Linear(2, 8), nn.Linear(8, 1)


def gan():
    made = {"generator": tl.optim.adam(lr=0.01), "judge": tl.optim.sgd(lr=0.1)}
    trainer = tl.Trainer(model := Gan(), optimizer=made, accumulate=accumulate)
    noise = torch.randn(101, 2, generator=torch.Generator().manual_seed(5))
    for real, z in trainer.batches((data(101)[0], noise), batch_size=10, seed=1):
        fake = model.generator(z)
        trainer.update((model.judge(fake.detach()) - model.judge(real)).mean(), optimizer="judge")
        trainer.update(-model.judge(fake).tanh().mean(), optimizer="generator")
    return weights(model)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.never = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        one = self.left(x[x[:, 0] > 1]) if (x[:, 0] > 1).any() else None
        other = self.right(x[x[:, 0] <= 1])
        return other.sum() + (0 if one is None else one.sum())


def branches():
    trainer = tl.Trainer(model := Branches(), optimizer=tl.optim.sgd(lr=0.01))
    for x in trainer.batches(data(40)[0], batch_size=4, seed=1):
        trainer.update(model(x) / len(x))
    assert model.never.weight.grad is None
    return weights(model)


def compressed():
    """Gradients in buckets of one weight each, as bf16."""
    return curve(20, samples=80, parallel=tl.DDP(compress=True, bucket_mb=1e-6))


def in_buckets():
    return curve(20, samples=80, parallel=tl.DDP(bucket_mb=1e-6))


def by_hand():
    """Batches that the user cuts: each update weighs the same."""
    trainer = tl.Trainer(model := mlp(), optimizer=tl.optim.sgd(lr=0.1))
    x, y = data(48)
    for begin in range(0, 48, 12):
        part = slice(begin + rank * 12 // size, begin + (rank + 1) * 12 // size)
        trainer.update(functional.cross_entropy(model(x[part]), y[part]))
    return weights(model)


def exact():
    yield "bits of sgd", curve(32 // accumulate, 320, 4, accumulate=accumulate)[:195 * 2]
    yield "bits of adamw", curve(32 // accumulate, 320, 4, tl.optim.adamw(lr=0.01), accumulate=accumulate)[:195 * 2]


def same():
    yield "plain", curve(20)
    yield "one sample last", curve(10)
    yield "less than a process each", curve(3, samples=7)
    yield "accumulated", curve(10, accumulate=3)
    yield "clipped", curve(20, clip_norm=0.1, penalty=tl.objective.l2(0.1))
    yield "average", curve(20, average=tl.optim.ema(0.9), schedule=tl.schedules.cosine())
    yield "tokens", tokens(1)
    yield "tokens, one sample last", tokens(1, 10)
    yield "tokens, accumulated", tokens(3, 10)
    yield "two optimizers", gan()
    yield "branches", branches()
    yield "by hand", by_hand()
    yield "in small buckets", in_buckets()
    yield "compressed", compressed()


found = dict(globals()[which]())
if rank == 0:
    torch.save(found, saved)
'''


@pytest.fixture(scope="module")
def weights(launch: Launch) -> Callable[..., dict[str, torch.Tensor]]:
    @cache
    def found(which: str, processes: int, accumulate: int = 1) -> dict[str, torch.Tensor]:
        weights: dict[str, torch.Tensor] = launch(SCRIPT, processes, which, str(accumulate))
        return weights

    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_processes_give_the_bits_of_one_that_accumulates(weights: Callable[..., Any], optimizer: str) -> None:
    assert torch.equal(weights("exact", 1, 2)[f"bits of {optimizer}"], weights("exact", 2)[f"bits of {optimizer}"])


CASES = [
    "plain",
    "one sample last",
    "less than a process each",
    "accumulated",
    "clipped",
    "average",
    "tokens",
    "tokens, one sample last",
    "tokens, accumulated",
    "two optimizers",
    "branches",
    "by hand",
    "in small buckets",
]


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_those_of_one_process(weights: Callable[..., Any], case: str, processes: int) -> None:
    one, several = weights("same", 1)[case], weights("same", processes)[case]
    assert one.isfinite().all()
    torch.testing.assert_close(several, one, rtol=1e-10, atol=1e-10)


def test_gradients_that_travel_as_bf16_are_rounded(weights: Callable[..., Any]) -> None:
    one, several = weights("same", 1)["compressed"], weights("same", 2)["compressed"]
    assert 1e-6 < float((one - several).abs().max()) < 0.02


RESUMED = """
import os, sys
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
import trueloop as tl

saved, act, parallel, out = sys.argv[1:]
rank = int(os.environ.get("RANK", 0))
torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(1)
x, y = torch.randn(101, 8, generator=generator), torch.randint(0, 3, (101,), generator=generator)
torch.manual_seed(0)
drops = nn.Dropout(0.1) if "dropout" in act else nn.Identity()
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), drops, nn.Linear(16, 3))
schedule, engine = tl.schedules.cosine(total_steps=18), "ddp" if parallel == "ddp" else tl.FSDP()
trainer = tl.Trainer(model, optimizer=tl.optim.adamw(lr=0.01), accumulate=2, schedule=schedule,
                     average=tl.optim.ema(0.9), parallel=engine)
if "resumed" in act:
    trainer.resume(out)
loader = DataLoader(TensorDataset(x, y), batch_size=10, shuffle=True)  # by the global random numbers
for epoch in trainer.epochs(3):
    for inputs, targets in trainer.batches(loader):
        event = trainer.update(functional.cross_entropy(model(inputs), targets))
        if event is not None and event.step == 9 and "saved" in act:
            trainer.save(out)
whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for m in (model, trainer.averaged) for p in m.parameters()]
if rank == 0:
    torch.save((trainer.step, torch.cat([p.detach().flatten() for p in whole])), saved)
"""


@pytest.mark.parametrize(("dropout", "processes"), [("", 1), ("", 2), ("", 3), ("with dropout", 2)])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_loop_that_is_saved_on_two_processes_goes_on_along_its_curve(
    launch: Launch, tmp_path_factory: pytest.TempPathFactory, parallel: str, processes: int, dropout: str
) -> None:
    out = tmp_path_factory.mktemp("own") / "run"
    steps, unbroken = launch(RESUMED, 2, f"saved {dropout}", parallel, str(out))
    assert steps == 18
    steps, resumed = launch(RESUMED, processes, f"resumed {dropout}", parallel, str(out))
    assert steps == 18
    torch.testing.assert_close(resumed, unbroken, rtol=0.0, atol=0.0 if processes == 2 else 1e-10)


BODY = """
import os, sys
import torch
from torch import distributed, nn
import trueloop as tl
from trueloop.errors import ArgumentError, NonFiniteError, PeerError

rank = int(os.environ["RANK"])
x = torch.arange(21.0).view(21, 1, 1).expand(21, 1, 4).contiguous()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.out = nn.BatchNorm1d(1), nn.Dropout(), nn.Linear(4, 1)

    def forward(self, x):
        return self.out(self.drop(self.norm(x)))


def trainer():
    torch.manual_seed(rank)  # weights differ, and so do random numbers
    return tl.Trainer(Net(), optimizer=tl.optim.sgd(lr=0.01), accumulate=2)


def trained():
    one, drawn, seen = trainer(), [], []
    for _ in one.epochs(2):
        for batch in one.batches(x, batch_size=4):
            drawn.append(torch.rand(3))
            seen.append(batch[:, 0, 0])
            one.update(one.model(batch).square().mean())
    return one, torch.stack(drawn), seen


one, drawn, seen = trained()
_, again, _ = trained()
parts = [None] * 2
distributed.all_gather_object(parts, {"drawn": drawn, "again": again, "seen": seen[:6], "common": torch.rand(3),
                                      "weights": [p.detach() for p in one.model.parameters()],
                                      "evaluated": [batch[:, 0, 0] for batch in one.evaluating(x, batch_size=4)],
                                      "buffers": list(one.model.buffers())})

fails = trainer()
for number, batch in enumerate(fails.batches(x, batch_size=2, shuffle=False)):
    try:
        fails.update(fails.model(batch).mean() * (float("nan") if number == 1 and rank == 1 else 1))
    except (NonFiniteError, PeerError) as error:
        told = type(error).__name__
    if number == 2:
        try:
            fails.save("never")
        except ArgumentError as error:
            parts[0]["refused"] = str(error)
parts[0]["step"] = fails.step
told = [told, told]
distributed.all_gather_object(told, told[0])
parts[0]["told"] = told
if rank == 0:
    torch.save(parts, sys.argv[1])
"""


@pytest.fixture(scope="module")
def parts(launch: Launch) -> Any:
    """What each of two processes met in its loop's body."""
    return launch(BODY, 2)


def test_a_body_gets_its_part_of_each_batch_and_a_spare_one_where_there_is_none(parts: Any) -> None:
    first, second = (part["seen"] for part in parts)
    assert [len(batch) for batch in first] == [2] * 5 + [1]
    assert sorted(torch.cat([*first, *second[:5]]).tolist()) == list(range(21))
    assert torch.equal(first[5], second[5])


def test_what_a_body_draws_is_each_process_s_own_and_the_same_in_another_run(parts: Any) -> None:
    first, second = parts
    assert not (first["drawn"] == second["drawn"]).any()
    assert len(first["drawn"].unique()) == first["drawn"].numel()
    assert torch.equal(first["drawn"], first["again"])
    assert torch.equal(first["common"], second["common"])


def test_all_begin_with_the_weights_of_the_first_and_keep_them_alike(parts: Any) -> None:
    first, second = parts
    assert all(map(torch.equal, first["weights"], second["weights"]))
    assert all(map(torch.equal, first["buffers"], second["buffers"]))


def test_each_process_evaluates_on_all_batches(parts: Any) -> None:
    for part in parts:
        assert torch.cat(part["evaluated"]).tolist() == list(range(21))


def test_a_loss_that_is_not_finite_on_one_ends_the_window_on_all(parts: Any) -> None:
    assert parts[0]["told"] == ["PeerError", "NonFiniteError"]
    assert parts[0]["step"] == 5  # of 6 windows


def test_within_a_window_a_checkpoint_is_refused(parts: Any) -> None:
    assert "save after the update() that takes a window's step" in parts[0]["refused"]


@pytest.mark.parametrize("what", ["examine", "verify_resume"])
def test_what_is_for_one_process_is_refused_on_several_and_nobody_waits(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    trainer = tl.Trainer(nn.Linear(2, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    with pytest.raises(ArgumentError, match="is for one process, and there are 2: start it without torchrun"):
        getattr(trainer, what)((torch.randn(8, 2), torch.randn(8, 1)), batch_size=4)


def test_an_examination_by_the_command_is_refused_by_the_first_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    codes = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        codes.append(main(["doctor", "--examine", "digits"]))
    assert codes == [2, 0]
    assert capsys.readouterr().err.count("an examination is for one process, and there are 2") == 1
