"""Some sources of random numbers are seeded, and another one is used without a seed.

Sees: one of ``torch.manual_seed``, ``numpy.random.seed``, ``random.seed`` is called, and numbers are drawn from the
shared generator of another of the three, for which no seed is set anywhere in the script; also where a data set draws
them as a loader without workers asks for its samples (in a worker, torch seeds all three).

Why it matters: the script looks repeatable and is not: two runs differ, and a difference between two settings may be
chance.

Usual causes: torch, NumPy and Python's ``random`` each have a generator of their own; seeding one leaves the others.

Fix: seed each of those that the script draws from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source.edits import after, together
from trueloop.doctor.source.events import Made, Operated
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.library import canonical
from trueloop.doctor.source.values import NONE, At, Class, Constant, Function, Named, Object, Scope, Value, constant

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program

_SEEDS = {"torch.manual_seed": "torch", "numpy.random.seed": "numpy", "random.seed": "random"}
_DRAWS = re.compile(
    r"(torch)\.(?:randn|rand|randint|randperm|normal|bernoulli|multinomial)$"
    r"|(numpy)\.random\.(?:randn|rand|randint|random|normal|uniform|choice|shuffle|permutation|standard_normal)$"
    r"|(random)\.(?:random|randint|uniform|choice|choices|shuffle|sample|gauss|randrange)$"
)
_SAID = {"torch": "torch.manual_seed", "numpy": "np.random.seed", "random": "random.seed"}
_OTHERWISE = re.compile(
    r"\b(?!manual_seed)(?:\w+seed\w*|seed\w+)\(|set_rng_state|set_state|setstate|default_rng|fork_rng"
)  # another function that seeds, or other generators


class NotSeeded(Rule):
    """Is read only."""

    name = "not-seeded"
    code = 803
    level = "note"
    certainty = "likely"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """A draw from a generator that has no seed, in a script that seeds another."""
    text = program.unit.code
    if _OTHERWISE.search(text):
        return
    events = [event for run in program.runs[:1] for event in run.of(Operated)]
    seeds = {_SEEDS[event.name]: event for event in events if event.name in _SEEDS and (event.args or event.kwargs)}
    told: set[str] = set()
    for event in [*events, *_drawn_by_data(program)] if seeds else ():
        drawn = _DRAWS.match(event.name)
        whose = "" if drawn is None else next(group for group in drawn.groups() if group)
        if not whose or whose in seeds or whose in told or "generator" in event.kwargs:
            continue
        if re.search(rf"(?<![\w.]){'(np|numpy).random' if whose == 'numpy' else whose}\.(manual_)?seed\(", text):
            continue
        told.add(whose)
        seeded = next(iter(seeds.values()))
        finding = program.finding(
            NotSeeded,
            f"`{event.name}` draws from a generator that is not seeded: each run of the script differs",
            f"`{seeded.name}` is called, and `{_SAID[whose]}` is not",
            at=event,
            related=[(seeded, "the seed of another generator")],
            help=f"call `{_SAID[whose]}(…)` as well, before the first draw",
        )
        yield Checked(finding, _mended(program, seeded, event))


def _drawn_by_data(program: Program) -> Iterator[Operated]:
    """The draws in ``__getitem__``, and in the methods that it calls, of what loaders without workers read."""
    seen: set[int] = set()
    for event in program.runs[0].of(Made):
        made = event.made
        data = made.option("dataset", 0) if made.cls == "torch.utils.data.DataLoader" else None
        if isinstance(data, Object) and data.cls == "torch.utils.data.Subset":
            data = data.option("dataset", 0)
        if not isinstance(data, Object) or not isinstance(data.cls, Class) or "**" in made.kwargs:
            continue
        if constant(made.option("num_workers", 5) or Constant(0)) != 0:
            continue
        left = [data.cls.find("__getitem__")]
        while left:
            method = left.pop()
            if not isinstance(method, Function) or method.unit is not program.unit or id(method.node) in seen:
                continue
            seen.add(id(method.node))
            calls: list[Any] = [one for one in blocks.walk(method.node) if blocks.kind(one) == "Call"]
            for one in calls:
                root, _, rest = program.unit.text(one.func).partition(".")
                if root == "self":
                    left.append(data.cls.find(rest))
                elif rest and isinstance(of := _named(method, root), Named):
                    given: dict[str, Value] = {
                        each.keyword.value: NONE for each in one.args if each.keyword is not None
                    }
                    at = At(method.unit, (), (), ())
                    yield Operated(one, at, canonical(f"{of.name}.{rest}"), (), given, NONE, method)


def _named(method: Function, name: str) -> Value | None:
    """What a name stands for around a method, if it stands for nothing else in it."""
    scope: Scope | None = method.scope
    while scope is not None and name not in scope.names:
        scope = scope.parent
    own = blocks.stored(method.unit, method.node)
    return scope.names[name] if scope is not None and name not in own else None


def _mended(program: Program, seeded: Operated, event: Operated) -> Fix | None:
    """The same seed for this generator, below the other one's."""
    draw: Any = event.node
    seed = next(iter(getattr(seeded.node, "args", ())), None)
    base = getattr(draw.func, "value", None)
    if base is None or seed is None or seeded.at.branches:
        return None
    call = f"{program.unit.text(base)}.{'manual_seed' if event.name.startswith('torch') else 'seed'}"
    line = f"{call}({program.unit.text(seed.value)})"
    return together("seed this generator as well", after(program, seeded.node, line))


_SHIFTED = """
        import random
        import torch
        from torch.utils.data import DataLoader, Dataset
        class Shifted(Dataset):
            def __init__(self, images):
                self.images = images
            def __len__(self):
                return len(self.images)
            def __getitem__(self, i):
                return self.shifted(self.images[i])
            def shifted(self, image):
                return torch.roll(image, random.choice([-1, 1]), -1) if random.random() < 0.5 else image
"""

READ_FIRES = {
    "a data set draws by another one": _SHIFTED
    + """
        torch.manual_seed(0)
        loader = DataLoader(Shifted(torch.rand(90, 8)), batch_size=10)
        net = torch.nn.Linear(8, 8)
        for x in loader:
            torch.nn.functional.mse_loss(net(x), x).backward()
    """,
    "numpy is left out": """
        import numpy as np
        import torch
        from torch import nn
        torch.manual_seed(0)
        order = np.random.permutation(100)
        model = nn.Linear(4, 3)
        nn.functional.cross_entropy(model(torch.randn(4, 4)), torch.tensor([0, 1, 2, 0])).backward()
    """,
}

READ_SILENT = {
    "a data set draws in workers, which torch seeds": _SHIFTED
    + """
        torch.manual_seed(0)
        loader = DataLoader(Shifted(torch.rand(90, 8)), batch_size=10, num_workers=2)
        net = torch.nn.Linear(8, 8)
        for x in loader:
            torch.nn.functional.mse_loss(net(x), x).backward()
    """,
    "a data set draws, and it is seeded": _SHIFTED
    + """
        torch.manual_seed(0)
        random.seed(0)
        loader = DataLoader(Shifted(torch.rand(90, 8)), batch_size=10)
        net = torch.nn.Linear(8, 8)
        for x in loader:
            torch.nn.functional.mse_loss(net(x), x).backward()
    """,
    "both are seeded": """
        import numpy as np
        import torch
        from torch import nn
        torch.manual_seed(0)
        np.random.seed(0)
        order = np.random.permutation(100)
        model = nn.Linear(4, 3)
        nn.functional.cross_entropy(model(torch.randn(4, 4)), torch.tensor([0, 1, 2, 0])).backward()
    """,
    "a generator of its own": """
        import numpy as np
        import torch
        torch.manual_seed(0)
        order = np.random.default_rng(0).permutation(100)
        torch.nn.functional.cross_entropy(torch.randn(4, 4), torch.tensor([0, 1, 2, 0])).backward()
    """,
    "nothing is": """
        import random
        import torch
        order = random.sample(range(10), 3)
        torch.nn.functional.cross_entropy(torch.randn(4, 4), torch.tensor([0, 1, 2, 0])).backward()
    """,
}
