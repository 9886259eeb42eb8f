"""Samples that the model is evaluated on stand in its training set too.

Sees: the same samples (by a fingerprint of their values, or by their rows in one dataset) in training passes and,
later, in evaluation passes of the same model. Small sets of values that coincide by chance do not count: the samples
must be able to differ by 16 bits or more (an iris flower's four values), by 30 where only a part is shared; and rows
that are common by nature (a short text as a bag of words, a row of the usual answers) do not count. All are guesses. In
the text: rows are copied (SMOTE, a join of a table with rows of it) before ``train_test_split``; the held-out part is
drawn from what is trained on whole, or by another ``random_split`` than the training part; two slices overlap.

Why it matters: the evaluation asks for what the model has seen. It rewards learning by heart, and says little of new
data; choices that are made by it (when to stop, which model) are wrong too.

Usual causes: copies were made before the split (oversampling, augmentation, overlapping windows); the validation
subset was drawn from a dataset that is also trained on whole; the split is drawn anew in every epoch or run; the data
hold duplicates.

Fix: split first, then copy, augment and balance the training part only. Train on the complement of the validation
rows, and keep the split fixed. Remove duplicates before the split.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Called, Ended, LossCalled, OptimizerMade, Settled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.data import part_of
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ritual import fed, is_stepped, used_for_training
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.seen import LoaderSeen, ModelSeen, Pass
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

FEW = 5  # samples: fewer are a note (the notes on diagnosis)
SHARE = 0.01  # of the evaluation's; a guess: real data hold some duplicates
WHOLE = 0.95
MOST = 0.6  # an evaluation that covers so much of the training set is a report on it, or a look at all the data
BITS, BITS_PART = 16.0, 30.0
PASSES = 200  # evaluation passes that are kept of each group
RICH = 300.0  # bits of a typical sample: with more (pictures, long texts), none is common by nature
COMPARED, MOST_COMPARED = 16, 4096  # samples of a pass, to tell by it what is common
LOOKED = 40  # evaluation passes whose samples are asked how common they are


@dataclass
class _Group:
    """Evaluation passes of one model: over one loader, or from one line."""

    loader: LoaderSeen | None
    passes: deque[Pass] = field(default_factory=lambda: deque(maxlen=PASSES))


@dataclass
class _Learner:
    """One model under one set of optimizers."""

    model: ModelSeen
    bits: float = -1.0
    trained: dict[int, int] = field(default_factory=dict)  # sample -> number of the pass that first trained on it
    fresh: list[tuple[int, int]] = field(default_factory=list)  # for each training pass: samples, new ones
    place: Place | None = None
    loaders: dict[int, LoaderSeen] = field(default_factory=dict)
    groups: dict[object, _Group] = field(default_factory=dict)
    common: set[int] = field(default_factory=set)  # samples of evaluations that may come again by chance
    looked: int = 0

    @property
    def closed(self) -> bool:
        """Training goes over one finite set again and again: hardly any sample is new at the end."""
        late = self.fresh[-max(len(self.fresh) // 4, 1) :]
        return len(self.fresh) >= 4 and sum(new for _, new in late) <= 0.02 * sum(count for count, _ in late)


@dataclass
class _Overlap:
    shared: int
    of: int
    certain: bool
    part: bool
    place: Place | None


class LeakBetweenSplits(Rule):
    """Compares, at the end, what each model was trained on with what it was evaluated on afterwards."""

    name = "leak-between-splits"
    code = 501
    level = "error"
    certainty = "measured"
    seen_by = ("run", "source")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._learners: dict[int, _Learner] = {}
        self._compared = 0
        self._told = False
        self._masked: set[int] = set()  # models that learn from the labels of a part of each batch

    def loss_called(self, fact: LossCalled) -> None:
        of = fact.of
        if of is not None and of.grad and of.shapes and of.shapes[0] and fact.input.shape[:1] != of.shapes[0][:1]:
            self._masked.add(of.model.number)

    def called(self, fact: Called) -> None:
        of = fact.of
        learner = self._learners.get(of.model.number)
        if not of.samples or (learner is not None and learner.bits >= 0):
            if learner is not None and not of.grad and BITS_PART <= learner.bits < RICH and learner.looked < LOOKED:
                self._mark_common(learner, fact)
            return
        from trueloop.doctor.samples import tensors_in, variety

        if learner is None:
            learner = self._learners[of.model.number] = _Learner(of.model)
        first = next(iter(tensors_in(fact.inputs)), None)
        if first is not None and len(of.samples) > 3:
            learner.bits = variety(first) if first.dim() > 1 and first[0].numel() > 1 else 0.0

    def _mark_common(self, learner: _Learner, fact: Called) -> None:
        """Samples that hold little but what most of their batch hold: they stand on both sides of any split."""
        from trueloop.doctor.samples import surprise, tensors_in

        first = next(iter(tensors_in(fact.inputs)), None)
        if first is None or len(first) != len(fact.of.samples) or not COMPARED <= len(first) <= MOST_COMPARED:
            return
        learner.looked += 1
        least = min(max(learner.bits / 2, BITS), BITS_PART)
        bits = zip(fact.of.samples, surprise(first), strict=True)
        learner.common.update(sample for sample, own in bits if own < least)

    def settled(self, fact: Settled) -> None:
        of = fact.of
        learner = self._learners.get(of.model.number)
        if learner is None or (not of.samples and of.loader is None):
            return
        if of.phase == "training":
            learner.place = of.place
            if of.loader is not None:
                learner.loaders.setdefault(of.loader.number, of.loader)
            if of.samples:
                known = learner.trained
                new = [sample for sample in of.samples if sample and sample not in known]
                learner.fresh.append((len(of.samples), len(new)))
                known.update(dict.fromkeys(new, of.number))
        elif learner.trained:
            # one line may call the model on a gallery and on queries
            key: object = (of.place, len(of.samples)) if of.loader is None else of.loader.number
            group = learner.groups.get(key)
            if group is None:
                group = learner.groups[key] = _Group(of.loader)
                if of.loader is not None:
                    self._learn_rows(of.loader, learner)
            group.passes.append(of)

    def optimizer_made(self, fact: OptimizerMade) -> Iterator[Finding]:
        """A new optimizer for a model that has trained: a new fold, stage or run begins."""
        if not any(learner.trained for learner in self._learners.values()):
            return
        held = {id(parameter) for parameter in fact.optimizer.parameters()}
        for learner in list(self._learners.values()):
            module = learner.model.module
            if module is not None and learner.trained and any(id(p) in held for p in module.parameters()):
                yield from self._judge(learner)
                self._learners[learner.model.number] = _Learner(learner.model, learner.bits)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for learner in self._learners.values():
            yield from self._judge(learner)

    def _learn_rows(self, loader: LoaderSeen, learner: _Learner) -> None:
        """While the loaders live: which rows each gives."""
        from trueloop.doctor.phases import rows_shared

        for other in learner.loaders.values():
            self.trace.answers["rows shared", loader.number, other.number] = rows_shared(loader, other)

    def _judge(self, learner: _Learner) -> Iterator[Finding]:
        if self._told or not learner.trained or self.trace.alternates:
            return
        found: list[tuple[_Group, _Overlap]] = []
        clean = False
        for group in learner.groups.values():
            loader = group.loader
            if not group.passes or (loader is not None and loader.trains) or not self._evaluates(group):
                continue
            self._compared += 1
            overlap = self._by_rows(learner, group) or self._by_values(learner, group)
            if overlap is None:
                continue
            if overlap.shared == 0:
                clean = True
            else:
                found.append((group, overlap))
        for group, overlap in found:
            if overlap.part or (not clean and self._meant_as_held_out(group)):
                self._told = overlap.shared >= FEW and overlap.shared >= SHARE * overlap.of
                yield self._leak(learner, group, overlap)

    def _evaluates(self, group: _Group) -> bool:
        return self.trace.evaluates(group.passes[-1])

    def _by_rows(self, learner: _Learner, group: _Group) -> _Overlap | None:
        """By the rows of one dataset that both loaders give, whatever is done to them later."""
        if group.loader is None:
            return None
        for number in learner.loaders:
            shared = self.trace.answers.get(("rows shared", group.loader.number, number))
            if shared is None:
                continue
            both, ours, theirs = shared
            if both == ours == theirs or both >= WHOLE * theirs:
                return None  # evaluation-on-training-data knows that one
            return _Overlap(both, ours, True, 0 < both < WHOLE * ours, group.loader.place)
        return None

    def _by_values(self, learner: _Learner, group: _Group) -> _Overlap | None:
        if learner.bits < BITS or learner.model.number in self._masked:
            return None
        trained, samples, shared = learner.trained, set(), set()
        whole = part = none = 0
        for one in group.passes:
            known = {sample for sample in one.samples if sample and sample not in learner.common}
            if not known:
                continue
            hits = {sample for sample in known if trained.get(sample, one.number) < one.number}
            share = len(hits) / len(known)
            if group.loader is None and len(known) >= FEW:
                whole, part, none = whole + (share >= WHOLE), part + (0 < share < WHOLE), none + (share == 0)
                if share >= WHOLE and len(known) == len(one.samples):
                    part = 0  # before, not all of it had been trained on yet
                if share >= WHOLE and len(group.passes) > 1:
                    continue  # one line may evaluate on several splits: this was the training set
            samples |= known
            shared |= hits
        place = group.passes[-1].place if group.loader is None else group.loader.place
        if group.loader is None and whole and not part:
            if none:
                return _Overlap(0, len(samples), False, False, place)
            every = {sample for one in group.passes for sample in one.samples if sample}
            covers = len(every) >= MOST * len(trained)
            return None if covers else _Overlap(len(every), len(every), False, False, place)
        if not samples:
            return None
        share = len(shared) / len(samples)
        if not shared:
            return _Overlap(0, len(samples), False, False, place)
        if len(shared) >= MOST * len(trained):
            return None
        if share >= WHOLE:
            return _Overlap(len(shared), len(samples), False, False, place)
        enough = learner.bits >= BITS_PART or share >= 0.5
        if not learner.closed or not enough:
            return None
        return _Overlap(len(shared), len(samples), False, True, place)

    def _meant_as_held_out(self, group: _Group) -> bool:
        """All of it was trained on, and nothing else is evaluated: does its name say validation?"""
        from trueloop.doctor.meant import means_held_out, means_training

        if group.loader is not None:
            place = group.loader.place
            return place is None or not means_training(place.source.partition("=")[0])
        place = group.passes[-1].place
        return place is not None and means_held_out(place.source)

    def _leak(self, learner: _Learner, group: _Group, overlap: _Overlap) -> Finding:
        share = overlap.shared / overlap.of
        grave = overlap.shared >= FEW and share >= SHARE
        what = "rows of the dataset" if overlap.certain else "samples, by their values,"
        return self.finding(
            f"{overlap.shared:,} of the {overlap.of:,} samples that {learner.model.kind} is evaluated on ({share:.0%}) "
            "stand in its training set too",
            f"{overlap.shared:,} {what} were in training batches before they were evaluated on"
            + ("" if overlap.certain else f"; {len(learner.trained):,} different samples were trained on"),
            place=overlap.place or group.passes[-1].place,
            level=None if grave else "note",
            certainty="certain" if overlap.certain else "measured",
            related=[(group.passes[-1].place, "they are evaluated here"), (learner.place, "and trained on here")],
        )

    def passed(self) -> str | None:
        return f"samples of {self._compared} evaluations do not stand in the training data" if self._compared else None

    def unseen(self) -> str | None:
        few = [one.model.kind for one in self._learners.values() if one.trained and 0 <= one.bits < BITS]
        return f"samples of {few[0]} are too alike to be told apart by their values" if few else None


def in_source(program: Program) -> Iterator[Checked]:
    """Rows are copied before a split; what is held out is a part of what is trained on; two slices overlap."""
    for run in program.runs:
        if run.complete:
            yield from _copied_first(program, run)
            yield from _of_two_splits(program, run)
            yield from _overlapping(program, run)


def _copied_first(program: Program, run: Run) -> Iterator[Checked]:
    """What is split holds some rows twice."""
    told: set[int] = set()
    for event in run.of(read.Operated):
        if event.name != "sklearn.model_selection.train_test_split" or not event.args or id(event.node) in told:
            continue
        copies = next((how for how in map(_copies, ancestors(event.args[0])) if how), "")
        if copies:
            told.add(id(event.node))
            finding = program.finding(
                LeakBetweenSplits,
                "rows are copied before the split: copies of one row stand on both sides",
                f"what is split was made by `{copies}`",
                at=event,
                help="split first, and copy rows of the training part only",
            )
            yield Checked(finding)


def _copies(value: values.Value) -> str:
    """By what a table was made, if that has some of its rows twice; empty if not."""
    if isinstance(value, values.Unknown) and value.via == "call":
        if value.name == "fit_resample" and isinstance(value.of, (values.Unknown, values.Object)):
            name = value.of.name.rpartition(".")[2]
            return f"{name}.fit_resample" if "Over" in name or "SMOTE" in name or name == "ADASYN" else ""
        joined = value.inputs[0] if value.inputs and value.name in ("concatenate", "vstack", "concat") else None
        parts = joined.all() if isinstance(joined, values.Items) and len(value.inputs) == 1 else ()
    elif isinstance(value, values.Tensor) and value.op in ("cat", "concat", "vstack"):
        parts = value.inputs if values.constant(value.options.get("dim"), 0) == 0 else ()
    else:
        parts = ()
    for one in parts:
        for other in parts:
            if one is not other and _rows_of(other) is one:
                return "a join of a table and rows of the same table"
    return ""


def _rows_of(value: values.Value) -> values.Value | None:
    """The table of which a value is some rows, by their numbers and not as a slice."""
    of, key = part_of(value)
    by_numbers = isinstance(key, (values.Tensor, values.Unknown)) and getattr(key, "via", "") != "slice"
    return of if by_numbers else None


def _of_two_splits(program: Program, run: Run) -> Iterator[Checked]:
    """The two parts come from two draws, or the held-out part is one of what is trained on whole."""
    trained = [loader for loader, _ in fed(run)]
    judged = _judged_on(run)
    if not judged or any(one in trained for one in judged) or len(trained) != 1:
        return
    if any(name in one.kwargs for one in (*trained, *judged) for name in ("sampler", "batch_sampler", "**")):
        return  # it may take the other rows
    whole, held_out = trained[0].option("dataset", 0), [one.option("dataset", 0) for one in judged]
    draws = {id(one.node) for one in held_out if isinstance(one, values.Object)}
    if not all(_is_part(one) for one in held_out) or len(draws) != 1:
        return
    of = {id(one.args[0]) for one in held_out if isinstance(one, values.Object)}
    if of == {id(whole)} and _is_called_held_out(held_out[0]):
        message = "the held-out samples are a part of the data set that is trained on whole"
    elif _is_part(whole) and isinstance(whole, values.Object) and of == {id(whole.args[0])}:
        if not _are_apart(run, whole, held_out[0]):
            return
        message = "training and held-out samples come from two random splits of one data set: most of them are shared"
    else:
        return
    finding = program.finding(
        LeakBetweenSplits,
        message,
        "both loaders lead back to the same data set, and nothing keeps the held-out samples out of the training",
        at=judged[0],
        related=[(trained[0], "trained on")],
        help="split once, and train on the other part of that split",
    )
    yield Checked(finding)


def _judged_on(run: Run) -> list[values.Object]:
    """The loaders on whose batches the trained model is only evaluated."""
    found: list[values.Object] = []
    for call in run.of(read.Called):
        if call.grad is False and is_stepped(run, call.target) and not used_for_training(run, call.result):
            for one in (one for given in call.args for one in ancestors(given)):
                of = one.inputs[0] if isinstance(one, values.Tensor) and one.op == "fetched" else None
                if isinstance(of, values.Object) and of.kind == "torch.utils.data.DataLoader" and of not in found:
                    found.append(of)
    return found


def _is_part(data: values.Value | None) -> bool:
    return isinstance(data, values.Object) and data.cls == "torch.utils.data.Subset" and len(data.args) > 1


def _is_called_held_out(data: values.Value | None) -> bool:
    """A part of the training data is also looked at for a training figure."""
    if not isinstance(data, values.Object):
        return False
    line = data.at.unit.lines[data.at.unit.span(data.node).start.line - 1].lower()
    return any(word in line for word in ("val", "test", "held", "dev_", "hold"))


def _are_apart(run: Run, one: values.Object, other: values.Value | None) -> bool:
    """Whether two random splits are drawn independently: neither from one seed, nor by the same indices."""
    if not isinstance(other, values.Object) or other.node is one.node:
        return False
    drawn = [event for event in run.of(read.Operated) if event.name == "torch.utils.data.random_split"]
    calls = [next((event for event in drawn if event.node is part.node), None) for part in (one, other)]
    if calls[0] is None or calls[1] is None:
        return False
    one_by, other_by = (_generator(call) for call in calls if call is not None)
    if one_by and other_by:
        return one_by != other_by
    # the global seed may be set anew before each
    return not one_by and not other_by and not any(event.name.endswith("seed") for event in run.of(read.Operated))


def _generator(call: read.Operated) -> str:
    """How the generator is written."""
    generator = given(call.node, "generator", 2)
    return "" if generator is None else call.at.unit.text(generator)


def _overlapping(program: Program, run: Run) -> Iterator[Checked]:
    """``x[:360]`` is trained on, and ``x[300:]`` is held out; not where the rows before are the context of a series."""
    if any(word in program.unit.code.lower() for word in ("window", "context", "look", "lag", "seq", "history")):
        return
    ends = [(of, stop) for event in run.of(read.Backward) for of, start, stop in _slices(event.loss) if start == 0]
    for call in run.of(read.Called):
        if call.grad is not False or not is_stepped(run, call.target) or used_for_training(run, call.result):
            continue
        for of, start, stop in (found for value in call.args for found in _slices(value)):
            end = next((end for whole, end in ends if whole is of), None)
            if end is not None and 0 < start < end < stop:
                finding = program.finding(
                    LeakBetweenSplits,
                    f"rows {start} to {end} are trained on and held out",
                    f"training reads the rows before {end}, the evaluation those from {start} on",
                    at=call,
                    help=f"begin the held-out part at {end}",
                )
                yield Checked(finding)
                return


def _slices(value: values.Value) -> Iterator[tuple[values.Value | None, float, float]]:
    """The slices of rows that went into a value: of what, from where, to where; only numbers that are known."""
    for one in ancestors(value):
        of, key = part_of(one)
        bounds = key.attrs.get("bounds") if isinstance(key, values.Unknown) and key.via == "slice" else None
        if bounds is None or values.constant(bounds[2], "") is not None:
            continue
        start, stop = values.constant(bounds[0], ""), values.constant(bounds[1], "")
        start, stop = 0 if start is None else start, math.inf if stop is None else stop
        if isinstance(start, int) and isinstance(stop, (int, float)) and start >= 0 and stop > 0:
            yield of, start, stop


FIRES = {
    "validation rows are trained on too": """
        data = TensorDataset(torch.randn(120, 8), torch.randint(0, 2, (120,)))
        train_loader = DataLoader(data, batch_size=20, shuffle=True)
        val_loader = DataLoader(Subset(data, range(30)), batch_size=30)
        model = nn.Linear(8, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(4):
            for x, y in train_loader:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()
            with torch.no_grad():
                for x, y in val_loader:
                    model(x)
    """,
    "copies on both sides, no loader": """
        base = torch.randn(100, 8)
        x = torch.cat([base, base[:40]])[torch.randperm(140)]
        train, held = x[:100], x[100:]
        model = nn.Linear(8, 1)
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(6):
            for rows in torch.randperm(100).split(25):
                opt.zero_grad()
                model(train[rows]).square().mean().backward()
                opt.step()
            with torch.no_grad():
                model(held)
    """,
    "long texts as bags of words, of which some stand on both sides": """
        x = (torch.rand(400, 120) < 0.2).float()
        x[350:380] = x[:30]
        y = x[:, :20].sum(1, keepdim=True)
        model = nn.Linear(120, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(4):
            for rows in torch.randperm(300).split(50):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                F.mse_loss(model(x[300:]), y[300:])
    """,
    "splits that overlap, augmented": """
        class Noisy(Dataset):
            def __init__(self, rows):
                self.x = rows
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return self.x[i] + 0.1 * torch.randn(8), i % 2
        data = Noisy(torch.randn(100, 8))
        train_loader = DataLoader(Subset(data, range(0, 80)), batch_size=20, shuffle=True)
        test_loader = DataLoader(Subset(data, range(60, 100)), batch_size=20)
        model = nn.Linear(8, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(3):
            for x, y in train_loader:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()
            with torch.no_grad():
                for x, y in test_loader:
                    model(x)
    """,
}

SILENT = {
    "the unlabelled half of each batch is of the domain that is evaluated": """
        source, target = torch.randn(200, 12), torch.randn(200, 12) + 0.5
        y, z = (source[:, 0] > 0).long(), (target[:, 0] > 0.5).long()
        body, classes, domains = nn.Linear(12, 16), nn.Linear(16, 2), nn.Linear(16, 2)

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.classes, self.domains = body, classes, domains
            def forward(self, x):
                h = self.body(x).relu()
                return self.classes(h), self.domains(h)
        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=1e-2)
        side = torch.arange(2).repeat_interleave(32)
        for it in range(90):
            i, j = torch.randint(200, (2, 32))
            label, domain = net(torch.cat([source[i], target[j]]))
            loss = F.cross_entropy(label[:32], y[i]) + 0.1 * F.cross_entropy(domain, side)
            opt.zero_grad()
            loss.backward()
            opt.step()
            if it % 15 == 14:
                net.eval()
                with torch.no_grad():
                    print("target accuracy", (net(target)[0].argmax(1) == z).float().mean().item())
                net.train()
    """,
    "retrieval: the gallery is the training set": """
        centers = 3 * torch.randn(5, 16)
        which = torch.randint(0, 5, (300,))
        data = centers[which] + 0.2 * torch.randn(300, 16)
        held = centers.repeat(10, 1) + 0.2 * torch.randn(50, 16)
        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        opt = torch.optim.Adam(model.parameters(), lr=5e-3)
        for it in range(120):
            anchor, other = torch.randint(0, 300, (2, 32))
            alike = (which[anchor] == which[other]).float() * 2 - 1
            loss = F.cosine_embedding_loss(model(data[anchor]), model(data[other]), alike)
            opt.zero_grad()
            loss.backward()
            opt.step()
            if it % 20 == 0:
                with torch.no_grad():
                    d = torch.cdist(model(held), model(data))
                print((which[d.argmin(1)] == torch.arange(5).repeat(10)).float().mean().item())
    """,
    "a report on the training data beside a validation": """
        x = torch.randn(120, 8)
        y = (x[:, 0] > 0).long()
        xt, xv, yt, yv = x[:90], x[90:], y[:90], y[90:]
        model = nn.Linear(8, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        def accuracy(a, b):
            with torch.no_grad():
                return (model(a).argmax(1) == b).float().mean().item()
        for epoch in range(5):
            for rows in torch.randperm(90).split(30):
                opt.zero_grad()
                F.cross_entropy(model(xt[rows]), yt[rows]).backward()
                opt.step()
            accuracy(xt, yt), accuracy(xv, yv)
    """,
    "short texts as bags of words": """
        lengths = torch.randint(1, 6, (500,))
        x = torch.zeros(500, 40)
        for row, length in enumerate(lengths):
            x[row, (torch.rand(length) ** 2 * 40).long()] = 1
        y = x[:, :20].sum(1, keepdim=True)
        model = nn.Linear(40, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(4):
            for rows in torch.randperm(400).split(50):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                F.mse_loss(model(x[400:]), y[400:])
    """,
    "few states that come again by right": """
        states = torch.randint(0, 2, (300, 6)).float()
        y = states.sum(1, keepdim=True)
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(4):
            for rows in torch.randperm(200).split(50):
                opt.zero_grad()
                F.mse_loss(model(states[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                F.mse_loss(model(states[200:]), y[200:])
    """,
    "each sample is held out in one fold": """
        x, y = torch.randn(90, 8), torch.randn(90, 1)
        for fold in range(3):
            held = torch.arange(90) % 3 == fold
            model = nn.Linear(8, 1)
            opt = torch.optim.SGD(model.parameters(), lr=0.05)
            for epoch in range(4):
                for rows in torch.randperm(60).split(20):
                    opt.zero_grad()
                    F.mse_loss(model(x[~held][rows]), y[~held][rows]).backward()
                    opt.step()
                with torch.no_grad():
                    F.mse_loss(model(x[held]), y[held])
    """,
    "losses of random pieces of both parts": """
        series = torch.randn(600)
        parts = {"train": series[:500], "val": series[500:]}
        def pieces(part):
            at = torch.randint(len(parts[part]) - 9, (16,))
            rows = torch.stack([parts[part][i:i + 9] for i in at])
            return rows[:, :8], rows[:, 8:]
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for step in range(60):
            if step % 10 == 0:
                with torch.no_grad():
                    for part in parts:
                        for _ in range(4):
                            x, y = pieces(part)
                            F.mse_loss(model(x), y)
            x, y = pieces("train")
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "oversampled, then split": """
        import torch
        from imblearn.over_sampling import SMOTE
        from sklearn.model_selection import train_test_split
        X, y = SMOTE(random_state=0).fit_resample(X, y)
        a, b, ya, yb = train_test_split(X, y)
        model = torch.nn.Linear(4, 2)
    """,
    "rows of the minority are added by hand": """
        import numpy as np
        import torch
        from sklearn.model_selection import train_test_split
        def balanced(X, y, rng):
            extra = rng.choice(np.flatnonzero(y == 1), 200)
            return np.concatenate([X, X[extra]]), np.concatenate([y, y[extra]])
        X, y = balanced(X, y, np.random.default_rng(0))
        a, b, ya, yb = train_test_split(X, y)
        model = torch.nn.Linear(4, 2)
    """,
    "held out of what is trained on whole": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Subset, TensorDataset
        data = TensorDataset(x, y)
        held_out = Subset(data, torch.randperm(len(data))[:300].tolist())
        train_loader, val_loader = DataLoader(data, batch_size=32, shuffle=True), DataLoader(held_out, batch_size=64)
        model = nn.Linear(4, 2)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(5):
            for a, b in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                print(sum((model(a).argmax(1) == b).sum().item() for a, b in val_loader))
    """,
    "two draws": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset, random_split
        def loaders(data):
            train, _ = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(0))
            _, test = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(1))
            return DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=64)
        train_loader, test_loader = loaders(TensorDataset(x, y))
        model = nn.Linear(4, 2)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(5):
            for a, b in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                for a, b in test_loader:
                    print((model(a).argmax(1) == b).float().mean())
    """,
    "two slices": """
        import torch
        from torch import nn
        X, y = load()
        n_train = 360
        X_train, X_test = X[:n_train], X[300:]
        model = nn.Linear(4, 1)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(50):
            opt.zero_grad()
            nn.functional.mse_loss(model(X_train), y[:n_train]).backward()
            opt.step()
        with torch.no_grad():
            print(nn.functional.mse_loss(model(X_test), y[300:]).item())
    """,
}

READ_SILENT = {
    "split, then oversampled; features joined side by side": """
        import numpy as np
        import torch
        from imblearn.over_sampling import SMOTE
        from imblearn.under_sampling import RandomUnderSampler
        from sklearn.model_selection import train_test_split
        X = np.concatenate([X, X[:, order]], axis=1)
        X, y = RandomUnderSampler().fit_resample(X, y)
        a, b, ya, yb = train_test_split(X, y)
        a, ya = SMOTE().fit_resample(a, ya)
        rows = np.flatnonzero(ya == 1)
        a, ya = np.concatenate([a, a[rows]]), np.concatenate([ya, ya[rows]])
        model = torch.nn.Linear(4, 2)
    """,
    "one split; the training figure beside the validation's": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Subset, TensorDataset, random_split
        data = TensorDataset(x, y)
        train, val = random_split(data, [0.8, 0.2])
        few = Subset(train, range(100))
        loaders = [DataLoader(one, batch_size=32) for one in (few, val)]
        train_loader = DataLoader(train, batch_size=32, shuffle=True)
        model = nn.Linear(4, 2)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(5):
            for a, b in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                for loader in loaders:
                    for a, b in loader:
                        print((model(a).argmax(1) == b).float().mean())
    """,
    "one data set, and a sampler on each side; the rows before a series' test": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset
        data = TensorDataset(x, y)
        order = torch.randperm(1000).tolist()
        train_loader = DataLoader(data, batch_size=32, sampler=SubsetRandomSampler(order[200:]))
        val_loader = DataLoader(Subset(data, order[:200]), batch_size=32)
        model = nn.Linear(4, 2)
        opt = torch.optim.Adam(model.parameters())
        series, window = load(), 20
        for epoch in range(5):
            for a, b in train_loader:
                opt.zero_grad()
                loss = nn.functional.cross_entropy(model(a), b) + model(series[:800]).mean()
                loss.backward()
                opt.step()
            with torch.no_grad():
                model(series[800 - window:])
                for a, b in val_loader:
                    print((model(a).argmax(1) == b).float().mean())
    """,
    "two draws from one seed": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset, random_split
        data = TensorDataset(x, y)
        train, _ = random_split(data, [80, 20], torch.Generator().manual_seed(0))
        _, val = random_split(data, [80, 20], torch.Generator().manual_seed(0))
        train_loader, val_loader = DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=64)
        model = nn.Linear(4, 2)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(5):
            for a, b in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                for a, b in val_loader:
                    print((model(a).argmax(1) == b).float().mean())
    """,
    "slices that meet; a look at the first training rows": """
        import torch
        from torch import nn
        X, y = load()
        model = nn.Linear(4, 1)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(50):
            opt.zero_grad()
            nn.functional.mse_loss(model(X[:300]), y[:300]).backward()
            opt.step()
        with torch.no_grad():
            print(nn.functional.mse_loss(model(X[300:]), y[300:]).item(), model(X[:10]), model(X[100:200]))
    """,
}
