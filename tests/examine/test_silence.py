"""On trainings that are right, of every kind, nothing is found that is a warning or graver, and nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import trueloop as tl
from trueloop.cli.find import find
from trueloop.testing import classification, mlp, regression

X, Y = classification(160, 6)


class Case(NamedTuple):
    """A training that is right."""

    model: nn.Module
    loss: Any
    train: Any
    val: Any = None
    choices: dict[str, Any] = {}  # noqa: RUF012
    how: dict[str, Any] = {}  # noqa: RUF012
    optimizer: Any = None


class Tokens(nn.Module):
    """A language model."""

    def __init__(self, tokens: int = 30) -> None:
        super().__init__()
        self.enter = nn.Embedding(tokens, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.out = nn.Linear(16, tokens)

    def forward(self, ids: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        out: Tensor = self.out(self.layer(self.enter(ids), mask, is_causal=True))
        return out


class Vae(nn.Module):
    """It samples in eval mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(6, 8), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.enter(x).chunk(2, 1)
        return self.out(mean + torch.randn_like(mean) * (log_variance / 2).exp()), mean, log_variance


def vae(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    out, mean, log_variance = model(batch)
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
    return {"loss": functional.mse_loss(out, batch) + 0.1 * divergence, "divergence": divergence}


def contrastive(model: nn.Module, batch: Tensor) -> Tensor:
    """Each sample's two views are to find each other among all others."""
    left, right = (functional.normalize(model(batch + 0.1 * torch.randn_like(batch)), dim=1) for _ in range(2))
    return functional.cross_entropy(left @ right.T / 0.1, torch.arange(len(batch)))


def next_token(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    target = batch[:, 1:]
    loss = functional.cross_entropy(model(batch[:, :-1]).transpose(1, 2), target, ignore_index=0)
    return loss, (target != 0).sum()


def negative(model: nn.Module, batch: Any) -> Tensor:
    """A log-likelihood of a density may be below zero."""
    mean, log_std = model(batch[0]).chunk(2, 1)
    loss: Tensor = ((batch[1] - mean).square() / (2 * (2 * log_std - 6).exp()) + log_std - 3).mean()
    return loss


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, first: int, last: int) -> None:
        self.rows = range(first, last)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.rows[index]
        return X[row] + 0.1 * torch.randn(6) * (self.rows.start == 0), Y[row]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(X[:128], Y[:128], strict=True))


def cases() -> Iterator[tuple[str, Case]]:
    x, y = regression(96)
    dice = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 30, (96, 12), generator=dice)
    tokens[torch.arange(12) >= torch.randint(4, 12, (96, 1), generator=dice)] = 0
    images = torch.rand(96, 1, 8, 8, generator=dice)
    labels = torch.arange(96) % 3
    train, val = (X[:128], Y[:128]), (X[128:], Y[128:])
    entropy = nn.CrossEntropyLoss()
    yield "regression", Case(mlp(3, 1, width=16), nn.MSELoss(), (x[:64], y[:64]), (x[64:], y[64:]))
    yield "huber, float64", Case(mlp(3, 1).double(), nn.HuberLoss(), (x.double(), y.double()))
    yield "a line", Case(nn.Linear(3, 1), nn.MSELoss(), (x[:64], y[:64]), (x[64:], y[64:]))
    yield "class weights", Case(mlp(6, 4), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 1.0, 1.0])), train, val)
    yield "smoothing", Case(mlp(6, 4), nn.CrossEntropyLoss(label_smoothing=0.1), train, val)
    soft = functional.one_hot(Y, 4).float() * 0.8 + 0.05
    yield "soft labels", Case(mlp(6, 4), entropy, (X[:128], soft[:128]), (X[128:], soft[128:]))
    several = (X[:, :3] > 0).float()
    bce = nn.BCEWithLogitsLoss()
    yield "several labels", Case(mlp(6, 3), bce, (X[:128], several[:128]), (X[128:], several[128:]))
    yield "two classes", Case(mlp(6, 1), bce, (X[:128], several[:128, :1]), (X[128:], several[128:, :1]))
    yield "autoencoder", Case(mlp(6, 6), nn.MSELoss(), (X[:128], X[:128]), (X[128:], X[128:]))
    pixels = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64), nn.Unflatten(1, (1, 8, 8)))
    yield "autoencoder of pixels", Case(pixels, bce, (images[:64], images[:64]), (images[64:], images[64:]))
    yield "VAE", Case(Vae(), vae, X[:128], X[128:])
    yield "contrastive", Case(mlp(6, 8), contrastive, X[:128], X[128:])
    yield "a language model", Case(Tokens(), next_token, tokens[:64], tokens[64:])
    yield "a density", Case(mlp(3, 2, width=16), negative, (x[:64], y[:64] / 20), (x[64:], y[64:] / 20))
    cnn = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten())
    cnn.append(nn.Linear(8 * 36, 3))
    yield "images", Case(cnn, entropy, (images[:64], labels[:64]), (images[64:], labels[64:]))
    own = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4))
    yield "BatchNorm of its own batch", Case(own, entropy, train, val)
    frozen = mlp(6, 4, norm=True, dropout=0.1)
    frozen[0].requires_grad_(False)
    yield "a frozen part", Case(frozen, entropy, train, val)
    resting = mlp(6, 4, norm=True)
    resting[1].eval().requires_grad_(False)
    yield "a resting BatchNorm", Case(resting, entropy, train, val)
    yield "bf16", Case(mlp(6, 4, width=16), entropy, train, val, {"precision": "bf16"})
    yield "fp16", Case(mlp(6, 4, width=16), entropy, train, val, {"precision": "fp16"})
    schedule = tl.schedules.warmup_cosine(warmup_steps=3)
    yield "a schedule", Case(mlp(6, 4), entropy, train, val, {"schedule": schedule, "clip_norm": 1.0}, {"epochs": 3})
    yield "sums", Case(mlp(6, 4), nn.CrossEntropyLoss(reduction="sum"), train, val)
    lbfgs = torch.optim.LBFGS
    yield "LBFGS", Case(mlp(6, 4), entropy, train, val, optimizer=lambda model: lbfgs(model.parameters(), lr=0.5))
    yield "augmentation", Case(mlp(6, 4), entropy, Noisy(0, 128), Noisy(128, 160))
    yield "workers", Case(mlp(6, 4), entropy, Noisy(0, 128), Noisy(128, 160), how={"workers": 1, "seed": 0})
    loaders = [DataLoader(TensorDataset(*data), batch_size=16, num_workers=1) for data in (train, val)]
    yield "loaders with workers", Case(mlp(6, 4), entropy, loaders[0], loaders[1])
    yield "a stream", Case(mlp(6, 4), entropy, Stream(), val)
    yield "few samples", Case(mlp(6, 4), entropy, (X[:4], Y[:4]), (X[4:6], Y[4:6]))
    yield "one sample", Case(mlp(6, 4), entropy, (X[:1], Y[:1]))
    yield "two inputs", Case(Bilinear(), entropy, {"a": X[:128], "b": X[:128].flip(0), "label": Y[:128]})
    known = mlp(6, 4, width=16)
    tl.Trainer(known, entropy, tl.optim.adam(lr=0.02)).fit(train, epochs=30, batch_size=16, progress=False)
    yield "weights that know already", Case(known, entropy, train, val)
    yield "a tiny rate", Case(mlp(6, 4), entropy, train, val, optimizer=tl.optim.sgd(lr=1e-6))
    penalty = {"penalty": tl.objective.l2(1e-3), "average": tl.optim.ema(0.9)}
    yield "a penalty and an average", Case(mlp(6, 4), entropy, train, val, penalty)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(6, 6, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.both(a, b)
        return out


@pytest.mark.parametrize("name", [name for name, _ in cases()])
def test_nothing_grave_is_found(name: str) -> None:
    tl.seed_all(0)
    case = dict(cases())[name]
    made = tl.Trainer(case.model, case.loss, case.optimizer or tl.optim.adamw(lr=3e-3), **case.choices)
    result = made.examine(case.train, case.val, max_steps=60, max_seconds=2.0, ignore=["loader-bound"], **case.how)
    assert result.passed, str(result)
    assert not [one for one in result.examinations if one.broke], str(result)


@pytest.mark.parametrize("name", ["digits", "regression", "char_lm"])
def test_our_recipes(name: str) -> None:
    small = {"width": 16, "layers": 1, "heads": 2, "context": 16, "sample": 0}
    recipe = find(name).function(**(small if name == "char_lm" else {}))
    how = {"seed": recipe.seed, "batch_size": recipe.batch_size, "epochs": recipe.epochs, "steps": recipe.steps}
    result = recipe.trainer.examine(recipe.train, recipe.val, max_steps=100, **how)
    assert result.passed, str(result)
    assert not [one for one in result.examinations if one.broke], str(result)
    assert sum(one.verdict == "passed" for one in result.examinations) >= 8, str(result)
