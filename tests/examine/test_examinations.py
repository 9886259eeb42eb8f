"""Each examination: a planted defect makes it fail by the right rule's name, and what is right passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import trueloop as tl
from trueloop.examine.loader_speed import judged
from trueloop.examine.result import Examination
from trueloop.examine.whole import EXAMINATIONS
from trueloop.testing import classification, mlp, regression

X, Y = classification(160, 6)
TRAIN, VAL = (X[:128], Y[:128]), (X[128:], Y[128:])
Made = Callable[..., Examination]


def examined(name: str, trainer: tl.Trainer, train: Any = TRAIN, val: Any = VAL, **how: Any) -> Examination:
    """One examination alone."""
    rules = EXAMINATIONS[name].rules
    (one,) = (one for one in trainer.examine(train, val, select=rules, **how).examinations if one.name == name)
    assert one.broke is None, one.broke
    return one


def trainer(model: nn.Module | None = None, loss: Any = None, lr: float = 0.01, **choices: Any) -> tl.Trainer:
    model = model or mlp(6, 4, width=16, norm=True, dropout=0.2)
    return tl.Trainer(model, loss or nn.CrossEntropyLoss(), tl.optim.adam(lr=lr), **choices)


def failed(one: Examination, name: str, level: str) -> None:
    assert one.verdict == "failed", one.sentence
    assert (one.findings[0].name, one.findings[0].level) == (name, level)
    assert one.findings[0].help
    assert one.sentence == one.findings[0].message


def passed(one: Examination) -> None:
    assert (one.verdict, one.findings) == ("passed", ()), one.sentence


def unknown(one: Examination) -> None:
    assert (one.verdict, one.findings) == ("unknown", ()), one.sentence


class Around(nn.Module):
    """A model that does something to the output or the input of another."""

    def __init__(self, inner: nn.Module, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.inner = inner
        self._before, self._after = before, after

    def forward(self, x: Tensor) -> Tensor:
        x = x if self._before is None else self._before(x)
        output: Tensor = self.inner(x)
        after: Tensor = output if self._after is None else self._after(output)
        return after


# --- the loss at initialisation


def test_initial_loss() -> None:
    passed(examined("initial-loss", trainer()))
    wide = mlp(6, 4)
    with torch.no_grad():
        for parameter in wide[-1].parameters():
            parameter.mul_(50)
    failed(examined("initial-loss", trainer(wide)), "initial-loss-off", "note")
    x, y = regression(64)
    failed(examined("initial-loss", trainer(mlp(), nn.MSELoss()), (x, 150 + y)), "initial-loss-off", "note")
    passed(examined("initial-loss", trainer(mlp(), nn.MSELoss()), (x, y)))


def test_weights_that_know_already_are_not_off() -> None:
    model = mlp(6, 4, width=16)
    trainer(model).fit(TRAIN, epochs=20, batch_size=16, progress=False)
    one = examined("initial-loss", trainer(model))
    passed(one)
    assert "chance over 4 classes is 1.39" in one.sentence


def test_a_loss_of_ones_own_is_heard_or_left_alone() -> None:
    def heard(model: nn.Module, batch: Any) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    def unheard(model: nn.Module, batch: Any) -> Tensor:
        logits = model(batch[0]).log_softmax(1)
        loss: Tensor = -logits.gather(1, batch[1].unsqueeze(1)).mean()
        return loss

    passed(examined("initial-loss", trainer(loss=heard)))
    unknown(examined("initial-loss", trainer(loss=unheard)))


# --- one batch


def test_one_batch() -> None:
    one = examined("one-batch", trainer())
    passed(one)
    assert "limit: 200 steps or 10 s" in one.sentence
    zeroed = Around(mlp(6, 4, width=64), before=torch.zeros_like)
    one = examined("one-batch", trainer(zeroed))
    failed(one, "not-learning", "error")
    assert any("limit" in line for line in one.findings[0].evidence)


def test_one_batch_whose_loss_is_constant() -> None:
    mute = Around(mlp(6, 4), after=lambda output: output * 0)
    failed(examined("one-batch", trainer(mute)), "loss-is-constant", "error")


def test_one_batch_with_a_rate_that_is_too_high() -> None:
    model = mlp(6, 1, width=16)
    y = X[:, :1].contiguous()
    high = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=30.0))
    failed(examined("one-batch", high, (X, y), None), "learning-rate-too-high", "warning")
    low = tl.Trainer(mlp(6, 1, width=16), nn.MSELoss(), tl.optim.sgd(lr=1e-7))
    passed(examined("one-batch", low, (X, y), None))  # a schedule or more steps may be meant


def test_one_batch_is_not_asked_of_what_cannot_hold_it() -> None:
    noise = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    unknown(examined("one-batch", trainer(nn.Linear(1, 1), nn.MSELoss()), (noise, noise.flip(0)), None))


def test_the_limits_of_one_batch_can_be_set() -> None:
    slow = tl.Trainer(mlp(6, 4, width=64), nn.CrossEntropyLoss(), tl.optim.sgd(lr=1e-3))
    one = examined("one-batch", slow, max_steps=3)
    unknown(one)
    assert "in 3 steps" in one.sentence
    assert "limit: 3 steps or 10 s" in one.sentence
    assert "limit: 200 steps or 1e-09 s" in examined("one-batch", slow, max_seconds=1e-9).sentence


# --- neighbours


class Images(nn.Module):
    """With BatchNorm, and a head that is right or mixes samples."""

    def __init__(self, mixes: bool) -> None:
        super().__init__()
        self.norm, self.out, self.mixes = nn.BatchNorm1d(24), nn.Linear(24, 4), mixes

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        out: Tensor = self.out(hidden - hidden.mean(0) if self.mixes else hidden)
        return out


def test_neighbours() -> None:
    data = torch.randn(64, 24), torch.arange(64) % 4
    passed(examined("neighbours", trainer(Images(mixes=False)), data, None))
    failed(examined("neighbours", trainer(Images(mixes=True)), data, None), "batch-samples-mix", "error")


def test_a_dict_is_given_to_the_model_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(12, 4)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            out: Tensor = self.out(torch.cat([left, right], 1))
            return out

    batch = {"left": X, "right": X.flip(0), "label": Y}
    passed(examined("neighbours", trainer(Two()), batch, None))


# --- gradients


class Parts(nn.Module):
    """A part of it is cut off, or frozen."""

    def __init__(self, cut: bool, frozen: bool = False) -> None:
        super().__init__()
        self.stem, self.head, self.cut = nn.Linear(6, 8), nn.Linear(8, 4), cut
        self.stem.requires_grad_(not frozen)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        out: Tensor = self.head(hidden.detach() if self.cut else hidden)
        return out


def test_gradients() -> None:
    passed(examined("gradients", trainer(Parts(cut=False))))
    passed(examined("gradients", trainer(Parts(cut=True, frozen=True))))
    one = examined("gradients", trainer(Parts(cut=True)))
    failed(one, "parameters-without-gradient", "warning")
    assert "stem.weight, stem.bias" in one.sentence


def test_a_loss_without_a_graph_gives_no_gradient() -> None:
    def detached(model: nn.Module, batch: Any) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1]).detach()

    failed(examined("gradients", trainer(loss=detached)), "detached-loss", "error")


def test_spare_parts_of_a_kind_that_learns_are_a_note() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(6, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.experts[0](x)
            return out

    failed(examined("gradients", trainer(Experts())), "parameters-without-gradient", "note")


# --- the same step


def test_the_same_step() -> None:
    passed(examined("same-step", trainer(Noisy(seeded=True))))
    one = examined("same-step", trainer(Noisy(seeded=False)))
    failed(one, "not-seeded", "note")
    assert "first in the loss" in one.sentence
    one = examined("same-step", trainer(), Unseeded(), None)
    assert "first in the batch" in one.sentence


class Noisy(nn.Module):
    """Adds noise, in training and elsewhere."""

    def __init__(self, *, seeded: bool, always: bool = True) -> None:
        super().__init__()
        self.out, self.seeded, self.always = nn.Linear(6, 4), seeded, always

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape) if self.seeded else torch.from_numpy(np.random.default_rng().normal(size=x.shape))
        out: Tensor = self.out(x + noise.to(x) if self.always or self.training else x)
        return out


class Unseeded(Dataset[tuple[Tensor, Tensor]]):
    """Noise that no seed reaches."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index] + float(np.random.default_rng().normal()), Y[index]


# --- the splits


def test_splits() -> None:
    passed(examined("splits", trainer()))
    leak = torch.cat([X[128:], X[:16]]), torch.cat([Y[128:], Y[:16]])
    one = examined("splits", trainer(), val=leak)
    failed(one, "leak-between-splits", "error")
    assert "16 of 48 validation samples" in one.sentence
    few = torch.cat([X[128:], X[:2]]), torch.cat([Y[128:], Y[:2]])
    failed(examined("splits", trainer(), val=few), "leak-between-splits", "note")
    unknown(examined("splits", trainer(), val=None))


def test_splits_of_one_dataset_are_compared_by_their_rows() -> None:
    class Augmented(Dataset[tuple[Tensor, Tensor]]):
        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return X[index] + torch.randn(6), Y[index]

    data = Augmented()
    one = examined("splits", trainer(), Subset(data, range(80)), Subset(data, range(60, 100)))
    failed(one, "leak-between-splits", "error")
    assert one.findings[0].certainty == "certain"
    assert "20 of 40" in one.sentence
    passed(examined("splits", trainer(), Subset(data, range(80)), Subset(data, range(80, 100))))


def test_samples_that_are_alike_by_chance_are_no_leak() -> None:
    coins = torch.arange(64).remainder(8).unsqueeze(1).bitwise_and(torch.tensor([1, 2, 4])).float()
    unknown(examined("splits", trainer(nn.Linear(3, 4)), (coins[:48], Y[:48]), (coins[48:], Y[48:64])))


def test_a_text_that_repeats_itself_is_a_note() -> None:
    tokens = torch.randint(0, 50, (100, 12), generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(48, 4))
    val = tokens[76:], Y[:24]
    failed(examined("splits", trainer(model), (tokens[:84], Y[:84]), val), "leak-between-splits", "note")


# --- the same evaluation


def test_the_same_evaluation() -> None:
    passed(examined("same-evaluation", trainer(Noisy(seeded=True, always=False))))
    one = examined("same-evaluation", trainer(Noisy(seeded=True)))
    failed(one, "dropout-always-on", "note")
    unknown(examined("same-evaluation", trainer(), val=None))


def test_an_evaluation_with_dropout_at_work() -> None:
    model = Around(mlp(6, 4), after=lambda output: functional.dropout(output, 0.5))
    failed(examined("same-evaluation", trainer(model)), "dropout-always-on", "error")


def test_an_evaluation_on_data_that_change() -> None:
    failed(examined("same-evaluation", trainer(), val=Unseeded()), "augmented-evaluation", "warning")


# --- the inputs


def test_inputs() -> None:
    one = examined("inputs", trainer())
    passed(one)
    assert "mean" in one.sentence
    raw = trainer(mlp(6, 4))
    failed(examined("inputs", raw, (200 + 90 * X[:128], Y[:128]), None), "inputs-not-scaled", "warning")
    passed(examined("inputs", trainer(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))), (200 + X, Y), None))


def test_inputs_with_a_nan() -> None:
    x = X.clone()
    x[3, 2] = float("nan")
    failed(examined("inputs", trainer(), (x, Y), None, shuffle=False), "non-finite-input", "error")


def test_inputs_that_are_scaled_on_one_side() -> None:
    failed(examined("inputs", trainer(), TRAIN, (X[128:] / 20, Y[128:])), "preprocessing-differs", "warning")


# --- the labels


def test_labels() -> None:
    one = examined("labels", trainer())
    passed(one)
    assert "4 classes, each with 25.0% to 25.0%" in one.sentence
    failed(examined("labels", trainer(), (X, torch.zeros_like(Y)), None), "degenerate-targets", "warning")
    failed(examined("labels", trainer(), (X, Y.clamp(max=1)), None), "degenerate-targets", "warning")
    rare = torch.where(torch.arange(160) < 150, 0, Y)
    failed(examined("labels", trainer(), (X, rare), None), "degenerate-targets", "note")


def test_labels_that_are_numbers_or_many() -> None:
    x, y = regression(64)
    passed(examined("labels", trainer(mlp(), nn.MSELoss()), (x, y), None))
    failed(examined("labels", trainer(mlp(), nn.MSELoss()), (x, y * 0 + 2), None), "degenerate-targets", "warning")
    several = (X[:, :3] > 0).float()
    one = examined("labels", trainer(mlp(6, 3), nn.BCEWithLogitsLoss()), (X, several), None)
    passed(one)
    assert "3 labels" in one.sentence
    auto = trainer(mlp(6, 6), nn.MSELoss())
    passed(examined("labels", auto, (X, X), None))


def test_labels_that_stand_within_a_batch_are_heard() -> None:
    tokens = torch.randint(0, 9, (64, 8), generator=torch.Generator().manual_seed(0))

    def next_token(model: nn.Module, batch: Tensor) -> Tensor:
        return functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten(), ignore_index=0)

    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9))
    one = examined("labels", trainer(model, next_token), tokens, None)
    assert "class 0 never comes" in one.sentence
    assert one.level == "note"


# --- the loader


class Slow(Dataset[tuple[Tensor, Tensor]]):
    """As slow as an image that is read and cut; ``seconds`` a sample."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 128

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        return X[index], Y[index]


def test_the_loader() -> None:
    passed(examined("loader-speed", trainer(), Slow(0.0), None, batch_size=4))
    one = examined("loader-speed", trainer(), Slow(0.01), None, batch_size=4)
    failed(one, "loader-bound", "note")  # a note, since the step is tiny
    assert "waits for data" in one.sentence


def test_a_loader_that_is_slow_but_costs_little_passes_and_says_why() -> None:
    passed(judged([0.006] * 10, [0.004] * 10))
    assert judged([0.006] * 10, [0.004] * 10).sentence.endswith(
        "60% of the time is spent waiting, but that is 0.06 s in all, and less than 0.3 s is not worth a word"
    )
    assert judged([0.004] * 10, [0.006] * 10).sentence.endswith(": 40% of the time is spent waiting")
    failed(judged([0.06] * 10, [0.04] * 10), "loader-bound", "warning")


# --- data of every kind


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "data",
    [
        Stream(),
        DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True),
        [(X[:16], Y[:16]), (X[16:32], Y[16:32])],
        {"x": X, "y": Y},
        {"x": X.numpy(), "y": Y.numpy()},
    ],
)
def test_data_of_every_kind(data: Any) -> None:
    made = trainer().examine(data, max_steps=100)
    assert made.findings == ()
    assert not [one for one in made.examinations if one.broke]
    assert {one.name for one in made.examinations if one.verdict == "unknown"} <= {
        *("splits", "same-evaluation", "neighbours", "loader-speed", "one-batch")
    }
