"""The training waits for its data most of the time.

Sees: over 20 batches or more (the first five of an iteration do not count), the median wait in the training loader is
half of the median time from batch to batch, or more. Where a step takes less than 10 ms beside it, on a CPU, this is
a note: a tiny model always waits.

Why it matters: the processor that trains stands idle; the run takes twice as long as it must, or longer.

Usual causes: ``num_workers=0`` with slow loading; heavy decoding or augmentation for each sample; small files on a
slow disk; data that are read again in every epoch though they fit into memory.

Fix: ``num_workers`` of 2 or more, with ``persistent_workers=True``; prepare the data once and keep tensors; do
augmentation on whole batches. Where the data fit into memory, gather batches by index.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Ended, Fetched
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

WARM_UP, BATCHES = 5, 20
SHARE = 0.5  # of the time (trainproof's limit; TraceML warns at 0.1, which toys reach by nature)
STEP = 0.010  # seconds beside the wait: shorter steps are tiny models'
IN_ALL = 0.3  # seconds: less is not worth a word
KEPT = 1000


class LoaderBound(Rule):
    """Compares, batch by batch, how long the loop waited with how long it took."""

    name = "loader-bound"
    code = 506
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        # by the loader's line, since it may be made anew in each epoch: waited, from batch to batch
        self._times: dict[object, list[tuple[float, float]]] = {}
        self._last: tuple[int, int, float] = (-1, -1, 0.0)  # loader, position, when
        self._shares: list[float] = []

    def fetched(self, fact: Fetched) -> None:
        now = time.perf_counter()
        number, position, then = self._last
        self._last = fact.loader.number, fact.position, now
        if fact.position >= WARM_UP and (number, position) == (fact.loader.number, fact.position - 1):
            times = self._times.setdefault(fact.loader.place or number, [])
            if len(times) < KEPT:
                times.append((fact.seconds, now - then))

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for loader in self.trace.loaders:
            times = self._times.get(loader.place or loader.number, [])
            if not loader.trains or len(times) < BATCHES:
                continue
            waited, took = median(wait for wait, _ in times), median(all_ for _, all_ in times)
            share = waited / took if took else 0.0
            self._shares.append(share)
            if share < SHARE or sum(wait for wait, _ in times) < IN_ALL:
                continue
            least = min(all_ - wait for wait, all_ in times)  # a busy machine makes the others longer
            tiny = least < STEP and not _on_accelerator()
            live = loader.loader
            workers = "" if live is None else f", with num_workers={live.num_workers}"
            yield self.finding(
                f"the loop waits for data {share:.0%} of the time{workers}",
                f"in the median of {len(times)} batches it waits {1000 * waited:.1f} ms, and a batch takes "
                f"{1000 * took:.1f} ms in all",
                place=loader.place,
                level="note" if tiny else None,
            )
            return

    def passed(self) -> str | None:
        return f"the loop waits for data {max(self._shares):.0%} of the time" if self._shares else None


def _on_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


FIRES = {
    "slow samples": """
        import time
        class Slow(Dataset):
            def __len__(self):
                return 60
            def __getitem__(self, i):
                time.sleep(0.008)
                return torch.randn(4), torch.zeros(1)
        loader = DataLoader(Slow(), batch_size=2, shuffle=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in loader:
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "a slow collate": """
        import time
        def collate(rows):
            time.sleep(0.015)
            return torch.stack(rows)
        loader = DataLoader(torch.randn(120, 4), batch_size=4, collate_fn=collate)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(2):
            for x in loader:
                opt.zero_grad()
                model(x).square().mean().backward()
                opt.step()
    """,
}

SILENT = {
    "a slow step": """
        import time
        loader = DataLoader(TensorDataset(torch.randn(120, 4)), batch_size=4)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for (x,) in loader:
            opt.zero_grad()
            model(x).square().mean().backward()
            time.sleep(0.01)
            opt.step()
    """,
    "fast all in all": """
        loader = DataLoader(TensorDataset(torch.randn(80, 4)), batch_size=4)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for (x,) in loader:
            opt.zero_grad()
            model(x).square().mean().backward()
            opt.step()
    """,
}
