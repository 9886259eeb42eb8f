"""Every worker reads the whole stream: each sample comes once from each of them.

Sees: a training loader over an IterableDataset with two workers or more; half of the samples that one worker gave (or
more) came from another one as well, while hardly any comes twice from the same worker (as it would when samples are
drawn with replacement). The samples must be able to differ by 16 bits or more.

Why it matters: an epoch has every sample as many times as there are workers; batches repeat. The schedule and the
figures count samples that are not there.

Usual causes: ``__iter__`` does not ask ``torch.utils.data.get_worker_info()``, so that every worker begins at the
front.

Fix: in ``__iter__``, ``info = get_worker_info()``, and give only every ``info.num_workers``-th sample, from
``info.id`` on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, Fetched, LoaderBegun, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import at_head, before, put, spelled, together
from trueloop.doctor.source.fixes import Checked, Fix

if TYPE_CHECKING:
    from trueloop.doctor.seen import LoaderSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

SHARED = 0.5
OWN_TWICE = 0.05
BITS = 16.0
SAMPLES = 8  # of each worker
KEPT = 20_000


@dataclass
class _Stream:
    workers: int
    given: list[set[int]]
    count: list[int]
    bits: float = -1.0
    place: Place | None = None
    iteration: int = 1
    whole: bool = field(default=False)


class IterableNotSharded(Rule):
    """Knows a batch's worker by its position: workers take turns."""

    name = "iterable-not-sharded"
    code = 518
    level = "error"
    certainty = "measured"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._streams: dict[int, _Stream] = {}
        self._told: set[int] = set()
        self._right = 0

    def loader_begun(self, fact: LoaderBegun) -> None:
        seen = fact.loader
        workers = workers_of(seen.loader)
        if workers >= 2 and seen.number not in self._streams:
            self._streams[seen.number] = _Stream(
                workers, [set() for _ in range(workers)], [0] * workers, place=fact.place
            )

    def fetched(self, fact: Fetched) -> None:
        stream = self._streams.get(fact.loader.number) if self._streams else None
        if stream is None or fact.loader.iterations != stream.iteration or sum(stream.count) > KEPT:
            return
        from trueloop.doctor.samples import fingerprints, tensors_in, variety

        first = next(iter(tensors_in(fact.batch)), None)
        if first is None or first.device.type != "cpu" or first.dim() == 0:
            return
        if stream.bits < 0 and len(first) > 1:
            stream.bits = variety(first)
        found = [sample for sample in fingerprints(first) if sample]
        worker = fact.position % stream.workers
        stream.given[worker].update(found)
        stream.count[worker] += len(found)

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if not self._streams:
            return
        for one in fact.passes:
            loader = one.loader
            if loader is not None and loader.number in self._streams and loader.iterations > 1:
                yield from self._judge(loader)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for loader in self.trace.loaders:
            if loader.trains and loader.number in self._streams:
                yield from self._judge(loader)

    def _judge(self, loader: LoaderSeen) -> Iterator[Finding]:
        if loader.number in self._told:
            return
        self._told.add(loader.number)
        stream = self._streams[loader.number]
        if stream.bits < BITS or min(stream.count) < SAMPLES:
            return
        smallest, *others = sorted(stream.given, key=len)
        distinct = sum(map(len, stream.given))
        shared = max(len(smallest & other) for other in others)
        if shared < SHARED * len(smallest) or distinct < (1 - OWN_TWICE) * sum(stream.count):
            self._right += 1
            return
        yield self.finding(
            f"each of {stream.workers} workers reads the same stream: samples come {stream.workers} times",
            f"in the first iteration one worker gave {len(smallest):,} different samples, and another gave "
            f"{shared:,} of these as well",
            place=loader.place or stream.place,
            related=[(stream.place, "the loader is iterated here")],
        )

    def passed(self) -> str | None:
        return f"workers of {self._right} streams give different samples" if self._right else None


def workers_of(loader: Any) -> int:
    """How many workers read a stream; 0 for what is no stream, or where a batch's worker is not known."""
    from torch.utils.data import IterableDataset

    if loader is None or not isinstance(loader.dataset, IterableDataset) or not getattr(loader, "in_order", True):
        return 0
    return int(loader.num_workers)


SHARDS = ("worker_info", "get_worker", "rank", "shard", "num_replicas")
"""Words in a dataset's text that say that it knows of other readers."""


def in_source(program: Program) -> Iterator[Checked]:
    """A loader with several workers reads an IterableDataset of the script's that does not ask which worker it is."""
    for run in program.runs:
        for event in run.of(read.Made):
            loader = event.made
            if loader.kind != "torch.utils.data.DataLoader" or "worker_init_fn" in loader.kwargs:
                continue
            workers = values.constant(loader.option("num_workers", 5))
            data = loader.option("dataset", 0)
            if not isinstance(workers, int) or workers < 2 or not isinstance(data, values.Object):
                continue
            cls = data.cls
            if not isinstance(cls, values.Class) or data.kind != "torch.utils.data.IterableDataset":
                continue
            text = cls.unit.text(cls.node).lower()
            if any(word in text for word in SHARDS) or not _repeats(cls):
                continue
            finding = program.finding(
                IterableNotSharded,
                f"each of {workers} workers reads all of {cls.name}: every sample comes {workers} times",
                f"{cls.name}.__iter__ does not ask `get_worker_info`, and the loader has num_workers={workers}",
                at=event,
                help="give each worker its share by `torch.utils.data.get_worker_info()`",
            )
            yield Checked(finding, _mended(program, cls))


def _mended(program: Program, cls: values.Class) -> Fix | None:
    """Each worker takes every n-th of what the one loop or ``yield from`` goes through."""
    found = cls.find("__iter__")
    function: Any = found.node if isinstance(found, values.Function) else None
    body = getattr(getattr(function, "body", None), "body", ())
    yields: list[Any] = [one for line in body for one in blocks.walk(line) if kind(one) in ("Yield", "Return")]
    lines = [line for line in body if any(one in yields for one in blocks.walk(line))]
    over: Any = None
    if len(lines) == 1 and kind(lines[0]) == "For":
        over = lines[0].iter
    elif len(lines) == 1 and len(yields) == 1:
        over = getattr(yields[0].value, "item", None) if kind(yields[0]) == "Yield" else yields[0].value
    if over is None or {"first", "workers"} & blocks.names(function):
        return None
    asked, torch = spelled(program, "torch.utils.data.get_worker_info")
    shares = f"info = {asked}()\nfirst, workers = (info.id, info.num_workers) if info else (0, 1)"
    title = "give each worker its share"
    if "randperm" not in program.unit.text(over):
        islice, imported = spelled(program, "itertools.islice")
        share = put(program, over, f"{islice}({program.unit.text(over)}, first, None, workers)")
        return together(title, before(program, lines[0], shares), share, torch, imported)
    number: Any = getattr(lines[0], "target", None)  # each worker draws an order of its own: the numbers are shared out
    if kind(number) != "Name":
        return None
    skipped = f"if {program.unit.text(number)} % workers != first:\n    continue"
    return together(title, before(program, lines[0], shares), at_head(program, lines[0], skipped), torch)


def _repeats(cls: values.Class) -> bool:
    """Whether each pass gives the same: not if it draws at random, as each worker draws its own."""
    function = cls.find("__iter__")
    return isinstance(function, values.Function) and "rand" not in cls.unit.text(function.node).replace("randperm", "")


FIRES = {
    "each worker shuffles all": """
        class Stream(IterableDataset):
            def __init__(self):
                self.x, self.y = torch.randn(80, 6), torch.randn(80, 1)
            def __iter__(self):
                for i in torch.randperm(80).tolist():
                    yield self.x[i], self.y[i]
        loader = DataLoader(Stream(), batch_size=10, num_workers=2)
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in loader:
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "in order, stopped early": """
        class Rows(IterableDataset):
            def __init__(self, rows):
                self.rows = rows
            def __iter__(self):
                return iter(self.rows)
        loader = DataLoader(Rows(torch.randn(400, 6)), batch_size=8, num_workers=2)
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for step, x in enumerate(loader):
            opt.zero_grad()
            model(x).square().mean().backward()
            opt.step()
            if step == 20:
                break
    """,
}

SILENT = {
    "shared out": """
        class Stream(IterableDataset):
            def __init__(self):
                self.x = torch.randn(80, 6)
            def __iter__(self):
                info = torch.utils.data.get_worker_info()
                for i in range(info.id, 80, info.num_workers):
                    yield self.x[i]
        loader = DataLoader(Stream(), batch_size=10, num_workers=2)
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x in loader:
            opt.zero_grad()
            model(x).square().mean().backward()
            opt.step()
    """,
    "drawn with replacement": """
        class Draws(IterableDataset):
            def __init__(self):
                self.x = torch.randn(40, 6)
            def __iter__(self):
                while True:
                    yield self.x[int(torch.randint(40, (1,)))]
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for step, x in enumerate(DataLoader(Draws(), batch_size=8, num_workers=2)):
            opt.zero_grad()
            model(x).square().mean().backward()
            opt.step()
            if step == 30:
                break
    """,
}

READ_FIRES = {
    "two workers": """
        import torch
        from torch.utils.data import DataLoader, IterableDataset
        class Stream(IterableDataset):
            def __init__(self, rows):
                self.rows = rows
            def __iter__(self):
                yield from self.rows
        loader = DataLoader(Stream(rows), batch_size=4, num_workers=2)
    """,
}

READ_SILENT = {
    "it asks, or is alone": """
        import torch
        from torch.utils.data import DataLoader, IterableDataset, get_worker_info
        class Stream(IterableDataset):
            def __iter__(self):
                info = get_worker_info()
                yield from range(info.id if info else 0, 100, info.num_workers if info else 1)
        class Plain(IterableDataset):
            def __iter__(self):
                yield from range(100)
        a, b = DataLoader(Stream(), num_workers=2), DataLoader(Plain())
    """,
}
