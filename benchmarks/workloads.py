"""What is trained, the same in every variant: data, model, loss and rate. Knows torch and nothing else."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LR = 1e-3


@dataclass(frozen=True)
class Work:
    """A workload; the optimizer is Adam at 1e-3 with torch's defaults."""

    name: str
    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    batch_size: int
    make_model: Callable[[], nn.Module]
    make_loss: Callable[[], nn.Module]

    def model(self) -> nn.Module:
        """A fresh model, always with the same weights."""
        torch.manual_seed(0)
        return self.make_model()

    def loader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The loader that everybody writes."""
        return DataLoader(TensorDataset(self.x, self.y), batch_size=self.batch_size, shuffle=True)

    def steps(self, epochs: int) -> int:
        """Optimizer steps in so many epochs; the last batch of an epoch may be short."""
        return epochs * -(-len(self.x) // self.batch_size)

    def loss_of(self, model: nn.Module) -> float:
        """The loss on (at most 1,024 of) the training samples, to see that a variant did train."""
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        with torch.no_grad():
            loss = float(self.make_loss()(model(self.x[:1024]).float(), self.y[:1024]))
        for module, training in modes:
            module.training = training
        return loss


@dataclass(frozen=True)
class Trained:
    """What a variant gives back."""

    wall: float
    """Seconds that the training call took; making model, optimizer, loader and trainer is outside."""
    cpu: float
    """Seconds of CPU time of the process in it, over all threads."""
    model: nn.Module


class Stopwatch:
    """``with Stopwatch() as watch: …``; then ``watch.trained(model)``."""

    def __enter__(self) -> Stopwatch:
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = time.process_time() - self._cpu

    def trained(self, model: nn.Module) -> Trained:
        return Trained(self._wall, self._cpu, model)


# --- the ten-feature regression ------------------------------------------------------------------------------------


def regression() -> Work:
    """1000 samples of ten features, batch 32, an MLP 10-5-1, mean squared error; 200 samples held out."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 10, generator=generator)
    y = x @ torch.randn(10, 1, generator=generator) + 0.1 * torch.randn(1200, 1, generator=generator)
    return Work("regression", x[:1000], y[:1000], x[1000:], y[1000:], 32, _mlp, nn.MSELoss)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 1))


# --- the CNN of fashion_mnist --------------------------------------------------------------------------------------


def fashion(samples: int = 2048, held_out: int = 512) -> Work:
    """Fashion-MNIST, batch 128, conv32-BN-conv64-BN-fc128, cross-entropy.

    Where the data is not found, images are noise: that changes no time, and ``has_fashion`` says it.
    """
    if has_fashion():
        x, y = _images("train", samples)
        x_val, y_val = _images("t10k", held_out)
    else:
        generator = torch.Generator().manual_seed(0)
        x, x_val = (torch.randn(n, 1, 28, 28, generator=generator) for n in (samples, held_out))
        y, y_val = (torch.randint(0, 10, (n,), generator=generator) for n in (samples, held_out))
    return Work("cnn", x, y, x_val, y_val, 128, _cnn, nn.CrossEntropyLoss)


def has_fashion() -> bool:
    """Whether the real images are here."""
    return _folder() is not None


def _cnn() -> nn.Module:
    # trueloop.recipes.fashion_mnist.cnn; written out, since the peers' environment has no trueloop
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def _folder() -> Path | None:
    wanted = [os.environ.get("TRUELOOP_DATA", ""), "/usr/share/datasets/fashion-mnist"]
    for place in (folder for name in wanted if name for folder in (Path(name), Path(name, "fashion-mnist"))):
        if (place / "train-images-idx3-ubyte.gz").is_file():
            return place
    return None


def _images(part: str, count: int) -> tuple[Tensor, Tensor]:
    folder = _folder()
    assert folder is not None, "call has_fashion first"
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = torch.frombuffer(bytearray(file.read(16 + count * 784)[16:]), dtype=torch.uint8)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = torch.frombuffer(bytearray(file.read(8 + count)[8:]), dtype=torch.uint8)
    return (pixels.view(-1, 1, 28, 28).float() / 255 - 0.286) / 0.353, labels.long()


WORKLOADS: dict[str, Callable[[], Work]] = {"regression": regression, "cnn": fashion}
