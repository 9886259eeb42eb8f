"""A setting costs time, and by how much was measured.

Sees: batches of tensors that lie in memory (in a TensorDataset, or as they are in a dataset of one's own; without
workers) are put together sample by sample; that takes a tenth of a step's time or more, and gathering the same batch
by index was measured here to be five times as fast.

Why it matters: the loop spends this time in Python, on copying single rows.

Usual causes: ``DataLoader(TensorDataset(x, y))`` fetches each sample by itself, and stacks them.

Fix: gather rows: ``for rows in torch.randperm(len(x)).split(batch_size): xb, yb = x[rows], y[rows]``; or give the
loader a ``BatchSampler`` as its ``sampler``, with ``batch_size=None``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Fetched, LoaderEnded
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

BATCHES = 20
SHARE, TIMES = 0.1, 5.0
IN_ALL = 0.04  # seconds waited: below this nobody cares
KEPT = 200
LARGEST = 200_000  # rows


class SlowSettings(Rule):
    """Times the loader as the loop does, and then its own gathering of one such batch."""

    name = "slow-settings"
    code = 704
    level = "note"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._times: dict[int, list[tuple[float, float]]] = {}
        self._last = (-1, -1, 0.0)
        self._done: set[int] = set()
        self._batches: dict[int, tuple[set[int], ...]] = {}  # loader -> of a batch's tensors: fingerprints of the rows

    def fetched(self, fact: Fetched) -> None:
        now = time.perf_counter()
        number, position, then = self._last
        self._last = fact.loader.number, fact.position, now
        if fact.position == 1 and fact.loader.number not in self._batches:
            from trueloop.doctor.samples import fingerprints, tensors_in

            rows = [set(fingerprints(tensor)) for tensor in tensors_in(fact.batch) if tensor.device.type == "cpu"]
            self._batches[fact.loader.number] = tuple(rows)
        if fact.position > 1 and (number, position) == (fact.loader.number, fact.position - 1):
            times = self._times.setdefault(number, [])
            if len(times) < KEPT:
                times.append((fact.seconds, now - then))

    def loader_ended(self, fact: LoaderEnded) -> Iterator[Finding]:
        seen = fact.loader
        times = self._times.get(seen.number, [])
        if seen.number in self._done or not seen.trains or len(times) < BATCHES:
            return
        self._done.add(seen.number)
        waited = median(wait for wait, _ in times)
        took = waited + min(all_ - wait for wait, all_ in times)  # the least: the doctor's own time is in the others
        if waited < SHARE * took or sum(wait for wait, _ in times) < IN_ALL:
            return
        tensors, size = in_memory(seen.loader, self._batches.get(seen.number, ()))
        if not tensors:
            return
        gathered = gathering(tensors, size)
        if gathered * TIMES > waited:
            return
        yield self.finding(
            f"batches are put together sample by sample, which takes {waited / took:.0%} of the time",
            f"a batch of {size} takes {1000 * waited:.2f} ms to fetch, in the median of {len(times)}; gathered by "
            f"index it took {1000 * gathered:.2f} ms",
            place=seen.place,
        )


def in_memory(loader: Any, batch: tuple[set[int], ...]) -> tuple[tuple[Any, ...], int]:
    """The tensors whose rows a loader gives, read one by one in this process, and its batch size; none if it does not.

    Args:
        loader: the loader.
        batch: of the tensors of one of its batches: the fingerprints of their rows.
    """
    from torch import Tensor
    from torch.utils.data import IterableDataset, Subset, TensorDataset, default_collate

    from trueloop.doctor.samples import fingerprints

    dataset = None if loader is None else loader.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if dataset is None or isinstance(dataset, IterableDataset) or not loader.batch_size:
        return (), 0
    if loader.num_workers or loader.collate_fn is not default_collate:
        return (), 0
    if isinstance(dataset, TensorDataset):
        return tuple(dataset.tensors), int(loader.batch_size)
    kept = [value for value in vars(dataset).values() if isinstance(value, Tensor) and value.dim()]
    tables = [(tensor, set(fingerprints(tensor))) for tensor in kept if len(tensor) <= LARGEST]
    used = [next((tensor for tensor, known in tables if rows <= known), None) for rows in batch]
    if not used or any(tensor is None for tensor in used):
        return (), 0  # what it gives was made anew
    return tuple(used), int(loader.batch_size)


def gathering(tensors: tuple[Any, ...], size: int) -> float:
    """How many seconds it takes to gather a batch by index."""
    import torch

    rows = torch.arange(min(size, len(tensors[0])))
    took = []
    for _ in range(5):
        began = time.perf_counter()
        _ = [tensor[rows] for tensor in tensors]
        took.append(time.perf_counter() - began)
    return median(took)


FIRES = {
    "a tensor dataset": """
        data = TensorDataset(torch.randn(50000, 8), torch.randn(50000, 1))
        loader = DataLoader(data, batch_size=2000, shuffle=True)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in loader:
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "a part of one": """
        data = TensorDataset(torch.randn(50000, 8), torch.randn(50000, 1))
        train, val = random_split(data, [45000, 5000])
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        loader = DataLoader(train, batch_size=2000, shuffle=True)
        for epoch in range(2):
            for x, y in loader:
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
}

FIRES |= {
    "a dataset of rows of one's own": """
        class Rows(Dataset):
            def __init__(self, x, y):
                self.x, self.y = x, y
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return {"x": self.x[i], "y": self.y[i]}
        loader = DataLoader(Rows(torch.randn(50000, 8), torch.randn(50000, 1)), batch_size=2000, shuffle=True)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for batch in loader:
            opt.zero_grad()
            F.mse_loss(model(batch["x"]), batch["y"]).backward()
            opt.step()
    """,
}

SILENT = {
    "gathered by index": """
        x, y = torch.randn(6000, 8), torch.randn(6000, 1)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for rows in torch.randperm(6000).split(200):
            opt.zero_grad()
            F.mse_loss(model(x[rows]), y[rows]).backward()
            opt.step()
    """,
    "a dataset of one's own": """
        class Rows(Dataset):
            def __len__(self):
                return 600
            def __getitem__(self, i):
                return torch.randn(8), torch.randn(1)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in DataLoader(Rows(), batch_size=20):
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
}
