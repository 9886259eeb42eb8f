"""Processes that train one model together have different weights.

Sees: a process group of two or more, a model in DistributedDataParallel or a loader whose ``DistributedSampler`` shares
the samples out. Where the other processes are listened to as well, the weights are compared after some steps (through
the group's own store): if they differ twice, each process trains a model of its own. Where they cannot be compared:
nothing in the code wraps the model or exchanges gradients.

Why it matters: each process learns from its part of the data alone, and only one of the models is saved. The run is as
good as one on a fraction of the data; what is reported and what is saved depend on which process does it.

Usual causes: the model was never wrapped; ``model.module(x)`` is called in place of ``model(x)``, and the gradients
are not exchanged; ``no_sync()`` around every backward; a checkpoint that only one process loads after the wrapping;
gradients averaged by hand over weights that were drawn from different seeds.

Fix: ``model = DistributedDataParallel(model)`` after the weights are loaded, and the forward pass through it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.others import group, leave, left, shares_out, users_lines
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from torch import nn

    from trueloop.doctor.seen import Pass
    from trueloop.doctor.trace import Trace

COMPARED = (4, 9, 19, 39, 79, 149)
"""Steps of a model's optimizer after which weights are compared: while all of them are heard, and in no round of n."""
TWICE = 2
EXCHANGES = re.compile(
    r"DistributedDataParallel|DDP\b|FullyShardedDataParallel|FSDP|fully_shard|all_?reduce|gather|average|"
    r"Accelerator|Fabric|deepspeed|lightning|horovod|ignite"
)
"""Words of code that exchanges gradients or weights."""
AVERAGES = re.compile(r"all_?reduce|all_gather|average|\breduce\(")


class WeightsDriftApart(Rule):
    """Compares the weights of the first model that is stepped on, a few times."""

    name = "weights-drift-apart"
    code = 413
    level = "error"
    certainty = "certain"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._one: Pass | None = None
        self._steps = 0
        self._others: tuple[int, ...] = ()
        self._left: list[tuple[int, str]] = []  # after which step, and the word that was left then
        self._apart: dict[int, dict[int, str]] = {}  # another process -> what was seen of it, by the step
        self._agreed: set[int] = set()  # processes that had the same weights once: always, or as in local SGD
        self._over = False

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        one = fact.passes[-1] if fact.passes and not self._over else None
        if one is None or (self._one is not None and one.model is not self._one.model):
            return
        if self._one is None:
            of = group()
            module = one.model.module
            if of is None or module is None or not self._together(one):
                self._over = of is not None or self.trace.step > 20
                return
            self._one, self._others = one, _partners(module, of)
        yield from self._compare()
        self._steps += 1
        if self._steps in COMPARED and (module := one.model.module) is not None:
            word = _word(module)
            self._over = word is None
            if word is not None:
                self._left.append((self._steps, word))
                leave(f"weights/{one.model.number}/{self._steps}", word)

    def _compare(self) -> Iterator[Finding]:
        """What the others have left after the steps that are not compared yet."""
        assert self._one is not None
        for step, own in self._left[:1]:
            theirs = {
                rank: word
                for rank, word in left(f"weights/{self._one.model.number}/{step}").items()
                if rank in self._others
            }
            for rank, word in theirs.items():
                seen = differ(own, word)
                if seen is None:
                    self._agreed.add(rank)
                else:
                    self._apart.setdefault(rank, {})[step] = f"after step {step}, {seen}"
            if len(theirs) == len(self._others):
                self._left.pop(0)
        for rank, sentences in self._apart.items():
            if len(sentences) >= TWICE and rank not in self._agreed and not self._over:
                self._over = True
                if not self._averages_weights():
                    yield self._finding(rank, list(sentences.values())[-1])

    def ended(self, fact: Ended) -> Iterator[Finding]:
        one = self._one
        if one is None or self._over or "Parallel" in one.model.kind or self._steps < COMPARED[0]:
            return
        yield from self._compare()
        if not (self._apart or self._agreed) and not any(EXCHANGES.search(line) for line in self._lines()):
            yield self._finding(None, "no line of the code wraps the model, or exchanges gradients")

    def _finding(self, other: int | None, seen: str) -> Finding:
        assert self._one is not None
        wrapped = "Parallel" in self._one.model.kind
        size = len(self._others) + 1
        return self.finding(
            f"{size} processes train on parts of one data set, and each has weights of its own",
            seen if other is None else f"process {other} has other weights than this one: {seen}",
            *([] if wrapped else ["the forward pass does not go through DistributedDataParallel"]),
            place=self._one.place,
            level="error" if other is not None else "warning",
            certainty="certain" if other is not None else "likely",
        )

    def _together(self, one: Pass) -> bool:
        """Whether processes mean to train one model: it is in DDP, or the samples are shared out."""
        if "FullyShard" in one.model.kind or "FSDP" in one.model.kind:
            return False
        return "DistributedData" in one.model.kind or (one.loader is not None and shares_out(one.loader.loader))

    def _averages_weights(self) -> bool:
        """Whether a line, or the two above it, say that weights (and not gradients) are averaged now and then."""
        lines = self._lines()
        for number, line in enumerate(lines):
            if not AVERAGES.search(line) or "grad" in line:
                continue
            above = " ".join(lines[max(0, number - 2) : number])
            if re.search(r"param|weight|state_dict|model", line) or re.search(
                r"parameters\(|state_dict|weights", above
            ):
                return True
        return any("LocalSGD" in line or "ModelAverager" in line for line in lines)

    def _lines(self) -> list[str]:
        return users_lines(None if self._one is None or self._one.place is None else self._one.place.file)

    def passed(self) -> str | None:
        return "the processes have the same weights" if self._agreed else None


def differ(own: str, other: str) -> str | None:
    """What is different of two processes' words, in a sentence; None where nothing is, or they are no pair.

    Example:
        >>> differ('[["w", [2], 5, 1.0]]', '[["w", [2], 7, 1.5]]')
        'w has norm 1.5 there and 1 here; 1 of 1 tensors differ'
        >>> differ('[["w", [2], 5, 1.0]]', '[["w", [3], 7, 1.5]]') is None
        True
    """
    mine, theirs = json.loads(own), json.loads(other)
    if [one[:2] for one in mine] != [one[:2] for one in theirs]:
        return None  # another model, or another part of it
    apart = [(a, b) for a, b in zip(mine, theirs, strict=True) if a[2] != b[2]]
    if not apart:
        return None
    a, b = max(apart, key=lambda pair: abs(pair[0][3] - pair[1][3]))
    return f"{a[0]} has norm {b[3]:.6g} there and {a[3]:.6g} here; {len(apart)} of {len(mine)} tensors differ"


def _partners(module: nn.Module, of: tuple[int, int]) -> tuple[int, ...]:
    """The processes that the model is shared with: where it is in DDP, those of its group."""
    import torch.distributed as dist

    own: Any = getattr(module, "process_group", None)
    ranks = range(of[1]) if own is None else dist.get_process_group_ranks(own)
    return tuple(rank for rank in ranks if rank != of[0])


def _word(module: nn.Module) -> str | None:
    """A sum of the bits of each parameter, and its norm; None where processes hold parts of it."""
    import torch

    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    ignored = getattr(module, "parameters_to_ignore", ())
    told = []
    for name, parameter in module.named_parameters():
        if type(parameter) is not torch.nn.Parameter or not parameter.requires_grad or name in ignored:
            if hasattr(parameter, "placements"):  # a DTensor: its shards differ, as they should
                return None
            continue
        values = parameter.detach()
        if values.is_complex() or values.is_sparse:
            continue
        bits = values.contiguous().view(kinds[values.element_size()]).sum(dtype=torch.int64)
        told.append([name.removeprefix("module."), list(values.shape), int(bits), float(values.float().norm())])
    return json.dumps(told)


_SCRIPT = """
        import torch.distributed as dist
        from torch.testing._internal.distributed.fake_pg import FakeStore
        from torch.utils.data.distributed import DistributedSampler
        dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
        try:
            data = TensorDataset(torch.randn(80, 4), torch.randn(80, 1))
            sampler = DistributedSampler(data)
            loader = DataLoader(data, batch_size=10, sampler=sampler)
            model = {model}
            opt = torch.optim.SGD(model.parameters(), lr=0.01)
            for epoch in range(3):
                sampler.set_epoch(epoch)
                for x, y in loader:
                    opt.zero_grad()
                    F.mse_loss(model(x), y).backward()
                    {exchange}
                    opt.step()
        finally:
            dist.destroy_process_group()
"""

FIRES = {"never wrapped": _SCRIPT.format(model="nn.Linear(4, 1)", exchange="pass")}

SILENT = {
    "averaged by hand": _SCRIPT.format(
        model="nn.Linear(4, 1)", exchange="[dist.all_reduce(p.grad) for p in model.parameters()]"
    ),
    "one process": _SCRIPT.format(model="nn.Linear(4, 1)", exchange="pass").replace("world_size=2", "world_size=1"),
}
