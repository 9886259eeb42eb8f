"""A metric that is reported for all is that of one process's part of the data.

Sees: an evaluation over a loader whose ``DistributedSampler`` shares the validation data out among several processes,
and code that lets one process report, in which nothing brings the parts together.

Why it matters: the figure is of one part of the validation data, half of it or a thousandth, and changes with the
number of processes. Where it decides (early stopping, the best checkpoint, a schedule that waits for a plateau),
processes decide differently: weights drift apart, or one stops and the others wait for ever.

Usual causes: the sampler was put on the validation loader as on the training loader, and ``if rank == 0: print(…)``
reports what rank 0 has counted.

Fix: ``counts = torch.tensor([right, seen]); dist.all_reduce(counts)`` before the division; a torchmetrics metric, which
does it in ``compute()``; or no ``DistributedSampler`` for the validation data, so that each process sees all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sized
from typing import TYPE_CHECKING, cast

from trueloop.doctor.facts import Evaluated
from trueloop.doctor.findings import Finding
from trueloop.doctor.others import group, shares_out, users_lines
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

TOGETHER = re.compile(
    r"all_?reduce|gather|\breduce\(|reduce_(?!lr)|_reduce|synchronize_between|torchmetrics|torcheval|Accelerator|Fabric|"
    r"lightning|ignite|deepspeed|horovod"
)
"""Words of code that brings numbers of several processes together."""
ONE_REPORTS = re.compile(
    r"rank\w*(\(\))?\s*(==|!=|<|>)\s*0|not \w*rank|is_(main|master|first|primary|chief)|(main|master)_process"
)
RANK = re.compile(r"""(?:.*;)?\s*([\w, ]+?)\s*=(?!=).*(?:get_rank\(\)|environ\W+(?:get\W+)?(?:LOCAL_)?RANK)""")
"""A line that puts the process's rank in a variable, or in one of several."""


class MetricOfOneProcess(Rule):
    """Asks when an evaluation is over, once a loader."""

    name = "metric-of-one-process"
    code = 316
    level = "warning"
    certainty = "likely"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._known: set[int] = set()
        self._right = False

    def evaluated(self, fact: Evaluated) -> Iterator[Finding]:
        of = fact.of
        loader = None if of.loader is None else of.loader.loader
        if loader is None or of.loader is None or of.loader.number in self._known or not of.evaluates:
            return
        self._known.add(of.loader.number)
        ranks = group()
        if ranks is None or of.loader.trains or not shares_out(loader):
            return
        place = of.passes[0].place
        lines = users_lines(None if place is None else place.file)
        if any(TOGETHER.search(line) for line in lines):
            self._right = True
        elif _one_reports(lines):
            own, samples = (len(of) for of in (cast(Sized, loader.sampler), cast(Sized, loader.dataset)))
            yield self.finding(
                "what is reported of this evaluation is of one process's part of the data",
                f"process {ranks[0]} evaluated {own:,} of the {samples:,} samples, and no line of the code "
                f"brings the parts of the {ranks[1]} processes together",
                place=place,
                related=[(of.loader.place, "its sampler shares the samples out")],
            )

    def passed(self) -> str | None:
        return "an evaluation's parts are brought together" if self._right else None


_SCRIPT = """
        import torch.distributed as dist
        from torch.testing._internal.distributed.fake_pg import FakeStore
        from torch.utils.data.distributed import DistributedSampler
        dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
        try:
            data, held = (TensorDataset(torch.randn(n, 4), torch.randn(n, 1)) for n in (80, 40))
            sampler = DistributedSampler(data)
            loader = DataLoader(data, batch_size=10, sampler=sampler)
            val_loader = DataLoader(held, batch_size=10{sampler})
            model = nn.parallel.DistributedDataParallel(nn.Linear(4, 1))
            def alone(state, bucket):  # a group that only says that there are two
                done = torch.futures.Future()
                done.set_result(bucket.buffer())
                return done
            model.register_comm_hook(None, alone)
            opt = torch.optim.SGD(model.parameters(), lr=0.01)
            for epoch in range(3):
                sampler.set_epoch(epoch)
                for x, y in loader:
                    opt.zero_grad()
                    F.mse_loss(model(x), y).backward()
                    opt.step()
                total = torch.zeros(())
                with torch.no_grad():
                    for x, y in val_loader:
                        total += F.mse_loss(model(x), y, reduction="sum")
                {together}
                if dist.get_rank() == 0:
                    print("validation", float(total))
        finally:
            dist.destroy_process_group()
"""

FIRES = {
    "rank 0 reports its own part": _SCRIPT.format(
        sampler=", sampler=DistributedSampler(held, shuffle=False)", together="pass"
    ),
}

SILENT = {
    "summed over all": _SCRIPT.format(
        sampler=", sampler=DistributedSampler(held, shuffle=False)", together="dist.all_reduce(total)"
    ),
    "each process sees all of it": _SCRIPT.format(sampler="", together="pass"),
}


def _one_reports(lines: list[str]) -> bool:
    """Whether a line asks which process it is, by its rank or by a variable that the rank was put in."""
    named = {name for line in lines if (found := RANK.match(line)) for name in re.findall(r"\w+", found[1])}
    own = re.compile(rf"\b({'|'.join(map(re.escape, sorted(named)))})\s*(==|!=|<|>)\s*0") if named else None
    return any(ONE_REPORTS.search(line) or (own is not None and own.search(line)) for line in lines)
