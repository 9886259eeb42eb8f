"""The doctor in ``fit`` and ``train``: what it tells, when it is silent, and that it changes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

import trueloop as tl
from trueloop.doctor.findings import Finding
from trueloop.doctor.listen import heard, listening
from trueloop.errors import TrueloopError
from trueloop.testing import classification, mlp, regression

Data = tuple[Tensor, Tensor]
CROSS_ENTROPY, SQUARES = nn.CrossEntropyLoss(), nn.MSELoss()


def findings(
    model: nn.Module,
    loss: Any,
    train: Any,
    val: Any = None,
    *,
    optimizer: Any = None,
    epochs: int | None = 4,
    batch_size: int | None = 16,
    doctor: bool = True,
    settings: dict[str, Any] | None = None,
    **how: Any,
) -> tuple[Finding, ...]:
    trainer = tl.Trainer(model, loss, optimizer or tl.optim.adam(lr=1e-2), doctor=doctor, **(settings or {}))
    size = None if isinstance(train, DataLoader) else batch_size
    return trainer.fit(train, val, epochs=epochs, batch_size=size, progress=False, **{"seed": 0, **how}).findings


def told(*given: Any, **how: Any) -> set[str]:
    """The names of what is told, but for notes."""
    return {finding.name for finding in findings(*given, **how) if finding.level != "note"}


def labelled(samples: int = 208, *, seed: int = 0) -> Data:
    return classification(samples, 8, seed=seed)


def by_label(samples: int = 208) -> Data:
    x, y = labelled(samples)
    order = y.argsort(stable=True)
    return x[order], y[order]


class Halves(nn.Module):
    """Its second layer is not used, or cut off from the loss, or hidden in a list."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.head = how, nn.Linear(8, 5), nn.Linear(5, 4)
        self.layers: Any = [nn.Linear(5, 5)] if how == "hidden" else nn.ModuleList([nn.Linear(5, 5)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if self.how == "cut":
            x = self.layers[0](x).relu().detach()
        if self.how == "hidden":
            x = self.layers[0](x).relu()
        out: Tensor = self.head(x + x.roll(1, 0) if self.how == "mixes" else 0 * x if self.how == "ignores" else x)
        return out


class Samples(Dataset[Any]):
    """A dataset of one's own."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, index: int) -> Any:
        x, y = self.data[0][index], self.data[1][index]
        return x + 0.1 * torch.randn(8), y


class Seeding(Samples):
    def __getitem__(self, index: int) -> Any:
        torch.manual_seed(0)
        return self.data[0][index] + 0.1 * torch.randn(8), self.data[1][index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*labelled(), strict=True))


def replaced_head() -> dict[str, Any]:
    model = mlp(8, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model[2] = nn.Linear(5, 4)
    return {"model": model, "optimizer": optimizer}


def two_hidden() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


def dead() -> nn.Module:
    model = mlp(8, 4, width=32)
    nn.init.constant_(model[0].bias, -100.0)  # type: ignore[arg-type]
    return model


def with_norm() -> nn.Module:
    return mlp(8, 4, norm=True)


def constant_term(model: nn.Module, batch: Data) -> Tensor:
    out = model(batch[0])
    return functional.cross_entropy(out, batch[1]) + functional.mse_loss(out.detach(), torch.zeros_like(out))


def keeping(kept: list[Tensor]) -> Callable[[nn.Module, Data], Tensor]:
    def loss(model: nn.Module, batch: Data) -> Tensor:
        kept.append(functional.cross_entropy(model(batch[0]), batch[1]))
        return kept[-1]

    return loss


def accuracy_of_pairs(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs[:, 0] > 0).float() == targets).float().mean()


def zeros_and_ones(samples: int, seed: int = 0) -> Data:
    x, y = labelled(samples, seed=seed)
    return x, (y % 2).float().unsqueeze(1)


MISTAKES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "softmax in the model": (
        "softmax-before-cross-entropy",
        lambda: {"model": nn.Sequential(mlp(8, 4), nn.Softmax(1))},
    ),
    "a layer in a list": ("parameters-not-optimized", lambda: {"model": Halves("hidden")}),
    "a layer made after the optimizer": ("stale-optimizer", replaced_head),
    "a layer that is not used": ("parameters-without-gradient", lambda: {"model": Halves("unused")}),
    "a part that is cut off": ("parameters-without-gradient", lambda: {"model": Halves("cut")}),
    "samples of a batch mix": ("batch-samples-mix", lambda: {"model": Halves("mixes")}),
    "the input is lost": ("input-ignored", lambda: {"model": Halves("ignores"), "train": labelled(400)}),
    "the loss is a constant": (
        "loss-is-constant",
        lambda: {"loss": lambda model, batch: 0 * model(batch[0]).sum() + 1.5},
    ),
    "a term without a graph": ("loss-term-without-model", lambda: {"loss": constant_term}),
    "losses are kept": ("retained-graph", lambda: {"loss": keeping([])}),
    "a rate of zero": ("weights-do-not-move", lambda: {"optimizer": tl.optim.sgd(lr=0.0)}),
    "a rate far too low": ("learning-rate-too-low", lambda: {"optimizer": tl.optim.sgd(lr=1e-7), "epochs": 6}),
    "a rate far too high": (
        "learning-rate-too-high",
        lambda: {"optimizer": tl.optim.adam(lr=30.0), "train": (torch.randn(208, 8), labelled()[1])},
    ),
    "a rate that kills most units in its first steps": (
        "learning-rate-too-high",
        lambda: (
            {"model": two_hidden(), "optimizer": tl.optim.adam(lr=1.0)}
            | {"train": (torch.rand(960, 8), torch.randint(0, 5, (960,))), "batch_size": 32}
        ),
    ),
    "a rate that breaks it": (
        "learning-rate-too-high",
        lambda: (
            {"model": nn.Linear(3, 1), "loss": SQUARES, "train": regression(208), "val": regression(40, seed=1)}
            | {"optimizer": tl.optim.sgd(lr=3.0)}
        ),
    ),
    "dead units": ("dead-units", lambda: {"model": dead(), "train": labelled(416), "batch_size": 32}),
    "sorted arrays": ("training-data-not-shuffled", lambda: {"train": by_label(), "shuffle": False}),
    "a sorted loader": (
        "training-data-not-shuffled",
        lambda: {"train": DataLoader(TensorDataset(*by_label()), 16)},
    ),
    "one class": ("degenerate-targets", lambda: {"train": (labelled()[0], torch.ones(208, dtype=torch.long))}),
    "one sample over": ("batch-of-one-with-batchnorm", lambda: {"model": with_norm(), "train": labelled(209)}),
    "a seed for each sample": ("duplicate-worker-rng", lambda: {"train": Seeding(labelled())}),
    "a metric of all pairs": (
        "metric-from-wrong-counts",
        lambda: (
            {"model": mlp(8), "loss": nn.BCEWithLogitsLoss(), "settings": {"metrics": {"acc": accuracy_of_pairs}}}
            | {"train": zeros_and_ones(208), "val": zeros_and_ones(40, seed=1)}
        ),
    ),
    "too many epochs": (
        "overfitting",
        lambda: (
            {"model": mlp(8, 4, width=256), "train": (torch.randn(40, 8), labelled(40)[1]), "epochs": 60}
            | {"val": (torch.randn(80, 8), labelled(80)[1])}
        ),
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_by_its_name(case: str) -> None:
    name, make = MISTAKES[case]
    torch.manual_seed(0)
    given: dict[str, Any] = {"model": mlp(8, 4), "loss": CROSS_ENTROPY, "train": labelled()}
    given |= {"val": labelled(40, seed=1)} | make()
    found: list[str] = []

    def watch(event: tl.Event) -> None:
        if isinstance(event, tl.Found):
            found.append(event.finding.name)

    breaks = case in ("a rate that breaks it", "one sample over")
    with pytest.raises((TrueloopError, ValueError)) if breaks else nullcontext():
        findings(**given, observers=[watch])
    assert found.count(name) == 1


def test_a_stream_read_whole_by_each_worker_is_told() -> None:
    assert told(mlp(8, 4), CROSS_ENTROPY, DataLoader(Stream(), 8, num_workers=2), epochs=2) == {"iterable-not-sharded"}
    assert told(mlp(8, 4), CROSS_ENTROPY, Stream(), workers=2) == set(), "our own workers share it out"


def notes(*given: Any, **how: Any) -> set[str]:
    return {finding.name for finding in findings(*given, **how) if finding.level == "note"}


def test_notes_of_the_whole_course() -> None:
    assert "no-validation" in notes(mlp(8, 4), CROSS_ENTROPY, labelled())
    flat = (torch.randn(320, 8), labelled(320)[1])
    assert "underfitting" in notes(nn.Linear(8, 4), CROSS_ENTROPY, flat, (torch.randn(80, 8), labelled(80)[1]))
    head = mlp(8, 4)
    only = torch.optim.Adam(head[2].parameters(), lr=1e-2)
    assert notes(head, CROSS_ENTROPY, labelled(), labelled(40, seed=1), optimizer=only) == {"parameters-not-optimized"}


def test_weights_of_the_best_evaluation_are_gone_only_where_nothing_was_saved(tmp_path: Path) -> None:
    given = mlp(8, 4, width=256), CROSS_ENTROPY, (torch.randn(40, 8), labelled(40)[1])
    val = torch.randn(80, 8), labelled(80)[1]
    assert {"overfitting", "last-weights-kept"} <= {one.name for one in findings(*given, val, epochs=60)}
    assert "last-weights-kept" not in notes(*given, val, epochs=60, out=tmp_path / "run")


# --- silence ----------------------------------------------------------------------------------------------------------


def few_of_one_class() -> Data:
    x, y = labelled(400)
    kept = (y != 0) | (torch.arange(400) % 40 == 0)
    return x[kept], y[kept]


class Gated(nn.Module):
    """A part that learns at few steps only."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.rare, self.times = nn.Linear(8, 4), nn.Linear(8, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += self.training
        out: Tensor = self.plain(x)
        return out + self.rare(x) if self.training and self.times % 20 == 0 else out


def rising(step: int) -> float:
    return 0.0 if step < 12 else min(1.0, step / 100)


RIGHT: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "a loader": lambda: {"train": DataLoader(TensorDataset(*labelled()), 16, shuffle=True)},
    "a stream": lambda: {"train": Stream()},
    "augmented": lambda: {"train": Samples(labelled()), "workers": 2},
    "imbalanced": lambda: {"train": few_of_one_class()},
    "tiny": lambda: {"train": labelled(10), "val": labelled(5, seed=1), "batch_size": 4},
    "one batch": lambda: {"train": labelled(16), "val": None, "epochs": 60},
    "by heart": lambda: {"train": labelled(16), "val": labelled(16), "epochs": 60},
    "accumulated": lambda: {"settings": {"accumulate": 4, "clip_norm": 1.0}},
    "averaged": lambda: {"settings": {"average": tl.optim.ema(0.9)}},
    "a rate that waits and rises": lambda: {"settings": {"schedule": rising}, "epochs": 8},
    "head only": lambda: {"optimizer": tl.optim.adam(lr=1e-2), "model": frozen()},
    "a part that learns rarely": lambda: {"model": Gated(), "epochs": 6},
    "normalised": lambda: {"model": with_norm()},
    "a fine-tuning rate": lambda: {"optimizer": tl.optim.adamw(lr=2e-5)},
    "in order, but mixed": lambda: {"shuffle": False},
}


def frozen() -> nn.Module:
    model = mlp(8, 4)
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right_is_left_alone(case: str) -> None:
    torch.manual_seed(0)
    given: dict[str, Any] = {"model": mlp(8, 4), "loss": CROSS_ENTROPY, "train": labelled()}
    assert told(**given | {"val": labelled(40, seed=1)} | RIGHT[case]()) == set()


def test_a_resumed_run_is_left_alone(tmp_path: Path) -> None:
    for epochs in (2, 4):
        given = mlp(8, 4), CROSS_ENTROPY, labelled(), labelled(40, seed=1)
        assert told(*given, epochs=epochs, out=tmp_path / "run", resume="auto") == set()


@pytest.mark.parametrize("case", ["plain", "augmented", "averaged", "sorted arrays", "samples of a batch mix"])
def test_the_bits_are_the_same_without_it(case: str) -> None:
    ends = []
    for doctor in (True, False):
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(0)
        make = RIGHT[case] if case in RIGHT else MISTAKES[case][1]
        given: dict[str, Any] = {"model": mlp(8, 4, dropout=0.2), "loss": CROSS_ENTROPY, "train": labelled()}
        given |= {"val": labelled(40, seed=1)} | make()
        findings(**given, doctor=doctor)
        weights = torch.cat([one.flatten().float() for one in given["model"].state_dict().values()])
        ends.append((weights.tolist(), torch.get_rng_state().tolist(), random.getstate(), np.random.rand()))
    assert ends[0] == ends[1]


# --- leaks, asked when the run begins ---------------------------------------------------------------------------------

X, Y = labelled(240)
ROWS = TensorDataset(X, Y)
ORDER = torch.randperm(240, generator=torch.Generator().manual_seed(0))


def split_with(seed: int) -> list[Subset[Any]]:
    return random_split(ROWS, [200, 40], generator=torch.Generator().manual_seed(seed))


LEAKS: dict[str, tuple[Any, Any]] = {
    "the same arrays": ((X, Y), (X, Y)),
    "slices of one tensor": ((X[:200], Y[:200]), (X[150:], Y[150:])),
    "copies in another order": ((X, Y), (X[ORDER[:60]].clone(), Y[ORDER[:60]].clone())),
    "the same dataset": (ROWS, ROWS),
    "subsets that overlap": (Subset(ROWS, range(200)), Subset(ROWS, range(180, 240))),
    "two splits of one dataset": (split_with(0)[0], split_with(1)[1]),
    "loaders over subsets": (DataLoader(ROWS, 16, shuffle=True), DataLoader(Subset(ROWS, range(40)), 16)),
    "a dataset of one's own": (Samples((X, Y)), Subset(Samples((X, Y)), range(40))),
}


def test_a_forward_pass_that_checkpointing_makes_again_is_made_no_oftener() -> None:
    def calls(doctor: bool) -> int:
        seen = list[int]()

        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())

            def inside(self, x: torch.Tensor) -> torch.Tensor:
                seen.append(len(x))
                made: torch.Tensor = self.inner(x)
                return made

            def forward(self, x: torch.Tensor) -> Any:
                return checkpoint(self.inside, x, use_reentrant=False)

        model = nn.Sequential(Block(), nn.Linear(4, 1))
        trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.1), doctor=doctor)
        trainer.fit((torch.randn(40, 4) + 3, torch.randn(40, 1)), epochs=2, batch_size=4, seed=0, progress=False)
        return len(seen)

    assert calls(doctor=True) == calls(doctor=False) == 2 * 2 * 10


@pytest.mark.parametrize("case", list(LEAKS)[:-1])
def test_a_leak_is_told_before_the_first_step(case: str) -> None:
    train, val = LEAKS[case]
    trainer = tl.Trainer(mlp(8, 4), CROSS_ENTROPY, tl.optim.adam(lr=1e-2))
    events = trainer.train(train, val, epochs=1, batch_size=None if isinstance(train, DataLoader) else 16)
    assert isinstance(next(events), tl.RunStarted)
    first = next(events)
    assert isinstance(first, tl.Found)
    assert (first.finding.name, first.finding.level) == ("leak-between-splits", "error")
    events.close()


def own_subsets() -> tuple[Any, Any]:
    data = Samples((X, Y))
    train, val = random_split(data, [200, 40], generator=torch.Generator().manual_seed(0))
    return train, val


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ((X[:200], Y[:200]), (X[200:], Y[200:])),
        (Subset(ROWS, range(200)), Subset(ROWS, range(200, 240))),
        own_subsets(),
        ((torch.randint(2, (200, 8)).float(), Y[:200]), (torch.randint(2, (40, 8)).float(), Y[200:])),
        LEAKS["a dataset of one's own"],  # another object: that it holds the same is not seen without reading it
    ],
    ids=["slices", "subsets", "a split", "few different samples", "two datasets"],
)
def test_right_splits_are_no_leak(train: Any, val: Any) -> None:
    assert "leak-between-splits" not in told(mlp(8, 4), CROSS_ENTROPY, train, val)


def test_large_arrays_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trueloop.examine.splits.AT_ONCE", 100)
    copies = X[:60].clone(), Y[:60].clone()
    assert "leak-between-splits" not in told(mlp(8, 4), CROSS_ENTROPY, (X, Y), copies)


def test_what_cannot_be_told_at_the_start_does_not_end_the_run() -> None:
    class Odd(Samples):
        def __len__(self) -> int:
            return 48

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise RuntimeError(name)

    assert told(mlp(8, 4), CROSS_ENTROPY, Odd(labelled(48)), Odd(labelled(48))) == set()


# --- where it is heard ------------------------------------------------------------------------------------------------


def test_it_stands_in_the_result_the_record_and_the_display(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = tl.Trainer(nn.Sequential(mlp(8, 4), nn.Softmax(1)), CROSS_ENTROPY, tl.optim.adam(lr=1e-2))
    result = trainer.fit(labelled(), labelled(40, seed=1), epochs=2, batch_size=16, out=tmp_path / "run")
    name = "softmax-before-cross-entropy"
    assert [finding.name for finding in result.findings] == [name]
    assert result.findings[0].place is not None
    assert result.findings[0].place.file == __file__
    record = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [line["finding"]["name"] for line in record if "finding" in line] == [name]
    assert f"error[{name}]" in "".join(capsys.readouterr())


def test_a_finding_says_when_in_the_run_it_was_made() -> None:
    late = findings(mlp(8, 4), CROSS_ENTROPY, labelled(), optimizer=tl.optim.sgd(lr=1e-7), epochs=6)
    (low,) = [finding for finding in late if finding.name == "learning-rate-too-low"]
    assert (low.step, low.epoch) == (78, 5)


# --- one run beside another -------------------------------------------------------------------------------------------


def softmax_events() -> Iterator[tl.Event]:
    trainer = tl.Trainer(nn.Sequential(mlp(8, 4), nn.Softmax(1)), CROSS_ENTROPY, tl.optim.adam(lr=1e-2))
    return trainer.train(labelled(), epochs=2, batch_size=16)


def test_an_abandoned_stream_does_not_deafen_the_next_run() -> None:
    left = softmax_events()
    assert isinstance(next(left), tl.RunStarted)
    assert isinstance(next(left), tl.StepEnded)
    assert heard()
    assert any(isinstance(event, tl.Found) for event in softmax_events())
    assert not heard(), "the older one's probes are out"
    rest = list(left)
    assert isinstance(rest[-1], tl.RunEnded)
    assert not heard()


def test_a_stream_that_is_dropped_takes_its_probes_out() -> None:
    left = softmax_events()
    next(left)
    next(left)
    assert heard()
    del left
    assert not heard()


def test_a_run_within_a_run() -> None:
    inner: list[bool] = []

    def at_each(event: tl.Event) -> None:
        if isinstance(event, (tl.StepEnded, tl.EpochEnded)) and len(inner) < 20:
            inner.append(any(isinstance(one, tl.Found) for one in softmax_events()))

    assert told(mlp(8, 4), CROSS_ENTROPY, labelled(), labelled(40, seed=1), observers=[at_each]) == set()
    assert inner == [True] * 20
    assert not heard()


def test_streams_by_turns_train_as_alone() -> None:
    models = [mlp(8, 4) for _ in "abc"]
    runs = [
        tl.Trainer(model, CROSS_ENTROPY, tl.optim.adam(lr=1e-2)).train(labelled(), epochs=2, batch_size=16, seed=0)
        for model in models
    ]
    for _ in zip(runs[0], runs[1], strict=True):
        pass
    for _ in runs[2]:
        pass
    assert tl.testing.same_bits(models[0], models[2])
    assert tl.testing.same_bits(models[1], models[2])
    assert not heard()


def test_whoever_listens_to_all_of_it_is_not_disturbed() -> None:
    with listening() as trace:
        events = list(softmax_events())
        assert heard()
    assert not any(isinstance(event, tl.Found) for event in events)
    assert [finding.name for finding in trace.findings if finding.level == "error"] == ["softmax-before-cross-entropy"]


def test_only_the_files_of_the_rules_that_listen_are_imported() -> None:
    from trueloop.doctor.catalogue import SAMPLED, sampled_rules

    assert {rule.name for rule in sampled_rules()} == set(SAMPLED)
    assert all("run" in rule.seen_by for rule in sampled_rules())
