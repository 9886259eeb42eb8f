"""The inputs were scaled with statistics of all data, the held-out part included.

Sees: a preprocessing step of scikit-learn was fitted, before training, on the very rows that the model is evaluated
on (nine tenths of them or more); or each feature of training and evaluation samples together has mean 0 and deviation
1 (or reaches from 0 to 1) to rounding, and that of the training samples alone has not. Measured, with N from 120 to
60,000: scaled by all data, the union's means lie below 1e-4 and those of the training part above 5e-4; scaled
rightly, the reverse.

Why it matters: the training has seen something of the evaluation data. The figures are better than on new data: a
little with means and deviations, much where features were selected, or values filled in.

Usual causes: ``fit_transform(X)`` or ``(X - X.mean(0)) / X.std(0)`` stands above the split.

Fix: split first; fit the scaler (or compute mean and deviation) on the training part, and use them for both parts.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Called, Ended, Settled, Transformed
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.cutting import cuts, is_part, made_of
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.splitting import fitted_after

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.seen import Pass
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.source.ways import Run
    from trueloop.doctor.trace import Trace

FEATURES = 4096  # of a sample; larger ones are not summed up
MOST_SAMPLES = 100_000
TRAINED, HELD_OUT = 20, 5  # samples at least
AGAIN = 0.2  # a pass with more known samples belongs to another epoch: only its new ones count
MEAN, DEVIATION, OFF = 1e-4, 1e-3, 5e-4
NEARLY_ALL = 0.9


@dataclass
class _Sums:
    """Of samples, feature by feature."""

    count: int = 0
    total: Any = 0.0
    squares: Any = 0.0
    low: Any = None
    high: Any = None

    def add(self, other: _Sums) -> None:
        self.count += other.count
        self.total, self.squares = self.total + other.total, self.squares + other.squares
        self.low = other.low if self.low is None else self.low.minimum(other.low)
        self.high = other.high if self.high is None else self.high.maximum(other.high)


@dataclass
class _Fit:
    """What one fitted step made of the rows that it was fitted on."""

    kind: str
    columns: int
    rows: set[int]
    place: Place | None


@dataclass
class _Learner:
    """The samples of one model."""

    known: set[int] = field(default_factory=set)
    held_out: set[int] = field(default_factory=set)
    both: int = 0
    train: _Sums = field(default_factory=_Sums)
    rest: _Sums = field(default_factory=_Sums)
    shape: tuple[int, ...] | None = None
    fits: list[list[int]] = field(
        default_factory=list
    )  # for each fit made before: rows of held-out samples, known ones
    place: Place | None = None
    train_place: Place | None = None
    last: Pass | None = None


class StatisticsFromAllData(Rule):
    """Knows it by the rows that a scaler was fitted on, or by what the values themselves say."""

    name = "statistics-from-all-data"
    code = 502
    level = "error"
    certainty = "measured"
    seen_by = ("run", "source")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._learners: dict[int, _Learner] = {}
        self._waiting: dict[int, tuple[tuple[int, ...], _Sums | None, list[tuple[int, int]]]] = {}
        self._fits: list[_Fit] = []
        self._right = 0

    def transformed(self, fact: Transformed) -> None:
        for fit in self._fits:
            if (fit.kind, fit.columns, fit.place) == (fact.kind, fact.columns, fact.fitted_at):
                if not self._learners:
                    fit.rows |= fact.fitted_rows
                return
        if fact.fitted_rows:
            self._fits.append(_Fit(fact.kind, fact.columns, set(fact.fitted_rows), fact.fitted_at))

    def called(self, fact: Called) -> None:
        of = fact.of
        if not of.samples:
            return
        learner = self._learners.get(of.model.number)
        if learner is None:
            learner = self._learners[of.model.number] = _Learner(fits=[[0, 0] for _ in self._fits])
        known = learner.known
        new = [row for row, sample in enumerate(of.samples) if sample not in known]
        if not new or len(known) > MOST_SAMPLES:
            return
        from trueloop.doctor.samples import tensors_in

        first = next(iter(tensors_in(fact.inputs)), None)
        if first is None or first.dim() < 2 or len(first) != len(of.samples) or not first.is_floating_point():
            return
        width = first[0].numel()
        if not 1 <= width <= FEATURES:
            return
        shape = tuple(first.shape[1:])
        values = first.detach()
        if len(new) < (1 - AGAIN) * len(of.samples):
            values = values[new]
        fitted = [self._among(fit, values) for fit in self._fits[: len(learner.fits)]]
        sums = None
        if learner.shape in (None, shape):
            learner.shape = shape
            sums = _sums(values.reshape(len(values), width))
        fresh = tuple(of.samples[row] for row in new)
        known.update(fresh)
        self._waiting[of.number] = fresh, sums, fitted

    def _among(self, fit: _Fit, values: Tensor) -> tuple[int, int]:
        """Of these samples' rows: how many there are, and how many the step was fitted on."""
        from trueloop.doctor.samples import fingerprints

        if values.shape[-1] != fit.columns and fit.columns != 1:
            return 0, 0
        rows = fingerprints(values.reshape(-1, fit.columns).float())
        return len(rows), sum(row in fit.rows for row in rows)

    def settled(self, fact: Settled) -> None:
        of = fact.of
        learner = self._learners.get(of.model.number)
        if learner is None:
            return
        training = of.phase == "training"
        if training:
            learner.train_place = of.place
            if learner.held_out and not learner.held_out.isdisjoint(of.samples):
                learner.both += len(learner.held_out.intersection(of.samples))
        else:
            learner.last, learner.place = of, of.place
        waiting = self._waiting.pop(of.number, None)
        if waiting is None:
            return
        fresh, sums, fitted = waiting
        if sums is not None:
            (learner.train if training else learner.rest).add(sums)
        if not training:
            learner.held_out.update(fresh)
            for tally, (rows, known) in zip(learner.fits, fitted, strict=True):
                tally[0], tally[1] = tally[0] + rows, tally[1] + known

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for learner in self._learners.values():
            if learner.last is None or learner.train.count < TRAINED or learner.rest.count < HELD_OUT:
                continue
            if learner.both > 0.02 * len(learner.held_out) or not self.trace.evaluates(learner.last):
                continue
            found = self._by_fit(learner) or self._by_values(learner)
            if found is not None:
                yield found
                return
            self._right += 1

    def _by_fit(self, learner: _Learner) -> Finding | None:
        for fit, (rows, known) in zip(self._fits, learner.fits, strict=False):
            if rows and known >= NEARLY_ALL * rows:
                return self.finding(
                    f"{fit.kind} was fitted on the samples that the model is evaluated on, too",
                    f"{known:,} of {rows:,} rows of the evaluation samples were among those that it was fitted on",
                    place=fit.place,
                    certainty="certain",
                    related=[(learner.place, "they are evaluated here")],
                )
        return None

    def _by_values(self, learner: _Learner) -> Finding | None:
        """Features first, then channels (or time steps), then all values at once."""
        if learner.shape is None:
            return None
        dims = len(learner.shape)
        alone = learner.train
        both = _Sums()
        both.add(alone)
        both.add(learner.rest)
        views: list[tuple[str, tuple[int, ...]]] = [("feature", ())]
        if dims > 1:
            views += [("channel", tuple(range(1, dims))), ("feature", tuple(range(dims - 1)))]
        views.append(("value", tuple(range(dims))))
        for what, over in views:
            whole, train = _reduce(both, learner.shape, over), _reduce(alone, learner.shape, over)
            said = standardised(whole, train) or (ranged(whole, train) if what == "feature" else None)
            if said is not None:
                scaled, evidence = said
                return self.finding(
                    f"the inputs were scaled ({scaled}) with statistics of all {both.count:,} samples, of which "
                    f"{learner.rest.count:,} are only evaluated on",
                    evidence.format(what=what),
                    place=_scaling_line(learner.train_place, scaled) or learner.place,
                    related=[(learner.place, "the model is evaluated here")],
                )
        return None

    def passed(self) -> str | None:
        return f"the inputs of {self._right} models were not scaled by their held-out part" if self._right else None


def _sums(rows: Tensor) -> _Sums:
    wide = rows.double()
    return _Sums(len(rows), wide.sum(0), wide.square().sum(0), wide.amin(0), wide.amax(0))


def _reduce(sums: _Sums, shape: tuple[int, ...], over: tuple[int, ...]) -> _Sums:
    """The same, over some of a sample's dimensions as well."""
    if not over:
        return sums
    times = 1
    for dim in over:
        times *= shape[dim]
    total, squares, low, high = (part.reshape(shape) for part in (sums.total, sums.squares, sums.low, sums.high))
    return _Sums(
        sums.count * times,
        total.sum(over).reshape(-1),
        squares.sum(over).reshape(-1),
        low.amin(over).reshape(-1),
        high.amax(over).reshape(-1),
    )


def standardised(both: _Sums, train: _Sums) -> tuple[str, str] | None:
    """Whether mean 0 and deviation 1 hold for all samples, and not for the training ones; if so, what and how near."""
    mean = both.total / both.count
    variance = (both.squares / both.count - mean.square()).clamp(min=0)
    live = both.high > both.low
    if not bool(live.any()) or both.count < 2:
        return None
    mean, deviation = mean[live].abs(), variance[live].sqrt()
    factor = (both.count / (both.count - 1)) ** 0.5
    off = (deviation - 1).abs().minimum((deviation * factor - 1).abs())
    if float((mean <= MEAN).double().mean()) < NEARLY_ALL or float((off <= DEVIATION).double().mean()) < NEARLY_ALL:
        return None
    alone = (train.total / train.count)[live].abs()
    middle, typical = float(alone.median()), float(mean.median())
    if middle < OFF or middle < 20 * typical:
        return None
    return (
        "mean 0, deviation 1",
        (
            f"over training and evaluation samples together each {{what}} has mean 0 (off by {typical:.0e} in the "
            f"median) and deviation 1; over the training samples alone the means are off by {middle:.0e}"
        ),
    )


def ranged(both: _Sums, train: _Sums) -> tuple[str, str] | None:
    """Whether all features reach from 0 (or -1) to 1 over all samples, and some do not over the training ones."""
    live = both.high > both.low
    if int(live.sum()) < 3:
        return None
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        exact = ((both.low[live] - low).abs() < 1e-6) & ((both.high[live] - high).abs() < 1e-6)
        if not bool(exact.all()):
            continue
        short = (train.low[live] > low + 1e-4) | (train.high[live] < high - 1e-4)
        missed = int(short.sum())
        if missed >= max(1, 0.1 * len(short)):
            return (
                f"from {low:g} to {high:g}",
                (
                    f"all {len(short)} {{what}}s reach exactly from {low:g} to {high:g} over training and evaluation "
                    f"samples together; over the training samples alone {missed} do not"
                ),
            )
    return None


_LINES = {
    True: re.compile(r"\.std\(|std_mean\(|var_mean\(|normali[sz]e\(|standardi[sz]e\(|zscore\(|scale\("),
    False: re.compile(r"\.(min|max|amin|amax|ptp)\(|minmax|normali[sz]e\(|scale\("),
}


def _scaling_line(near: Place | None, scaled: str) -> Place | None:
    """The first line of the file that looks like the scaling."""
    if near is None:
        return None
    pattern = _LINES["deviation" in scaled]
    for number, line in enumerate(linecache.getlines(near.file), 1):
        if pattern.search(line) and not line.lstrip().startswith(("#", "def ", "import ", "from ")):
            return Place(near.file, number)
    return None


LEARN = frozenset(
    [
        "StandardScaler",
        "MinMaxScaler",
        "MaxAbsScaler",
        "RobustScaler",
        "PowerTransformer",
        "QuantileTransformer",
        "KBinsDiscretizer",
        "SplineTransformer",
        "TargetEncoder",
        "SimpleImputer",
        "KNNImputer",
        "IterativeImputer",
        "CountVectorizer",
        "TfidfVectorizer",
        "TfidfTransformer",
        "PCA",
        "IncrementalPCA",
        "KernelPCA",
        "SparsePCA",
        "MiniBatchSparsePCA",
        "TruncatedSVD",
        "FastICA",
        "FactorAnalysis",
        "NMF",
        "MiniBatchNMF",
        "LatentDirichletAllocation",
        "DictionaryLearning",
        "MiniBatchDictionaryLearning",
        "LinearDiscriminantAnalysis",
        "NeighborhoodComponentsAnalysis",
        "PLSRegression",
        "Nystroem",
        "SelectKBest",
        "SelectPercentile",
        "SelectFpr",
        "SelectFdr",
        "SelectFwe",
        "GenericUnivariateSelect",
        "SelectFromModel",
        "SequentialFeatureSelector",
        "RFE",
        "RFECV",
        "VarianceThreshold",
    ]
)
"""Transformers of scikit-learn's that learn from the rows that they are fitted on; more than which categories occur."""


def in_source(program: Program) -> Iterator[Checked]:
    """A transformer of scikit-learn's is fitted on what is only split afterwards."""
    told: set[int] = set()
    for run in program.runs:
        fits: list[read.Operated] = []
        for event in run.of(read.Operated):
            if _learns(event):
                fits.append(event)
                again = _on_both_sides(fits)
                if again is not None and id(event.node) not in told:
                    told.add(id(event.node))
                    yield Checked(_fitted_again(program, event, again), _only_applied(program, event, again))
                continue
            whole = _split(event)
            scaled = next((one for one in whole if _is_standardised(one)), None)
            if scaled is not None and id(event.node) not in told and not any(_is_split(one) for one in whole):
                told.add(id(event.node))
                yield Checked(_by_hand(program, event, scaled, "the split"))
            for fit in fits if whole else ():
                if id(fit.node) in told or not _goes_in(fit, whole) or _is_split(fit.args[1]):
                    continue
                told.add(id(fit.node))
                name = fit.name.partition(".")[0]
                finding = program.finding(
                    StatisticsFromAllData,
                    f"{name} is fitted on all rows, before they are split",
                    "what it gives is split into training and held-out rows afterwards",
                    at=fit,
                    related=[(event, "the split")],
                    help="split first; `fit` on the training rows, and `transform` both",
                )
                is_plain = event.name == "sklearn.model_selection.train_test_split"
                yield Checked(finding, fitted_after(program, fit, event) if is_plain else None)
        yield from _cut_by_hand(program, run, fits, told)


def _cut_by_hand(program: Program, run: Run, fits: list[read.Operated], told: set[int]) -> Iterator[Checked]:
    """``x[:800]`` is trained on, ``x[800:]`` evaluated, and ``x`` was scaled by statistics of all its rows."""
    for cut in cuts(run):
        whole = list(made_of(cut.whole))
        scaled = next((one for one in whole if _is_standardised(one) and not is_part(one)), None)
        if scaled is not None and id(cut.evaluation.node) not in told:
            told.add(id(cut.evaluation.node))
            yield Checked(_by_hand(program, cut.evaluation, scaled, "the held-out rows are evaluated here"))
            return
        for fit in fits:
            if id(fit.node) not in told and _goes_in(fit, whole) and not is_part(fit.args[1]):
                told.add(id(fit.node))
                finding = program.finding(
                    StatisticsFromAllData,
                    f"{fit.name.partition('.')[0]} is fitted on all rows, before they are split",
                    "a part of what it gives is trained on, and the other part is evaluated",
                    at=fit,
                    related=[(cut.evaluation, "the held-out rows are evaluated here")],
                    help="split first; `fit` on the training rows, and `transform` both",
                )
                yield Checked(finding)
                return


def _by_hand(program: Program, split: read.Operated | read.Called, scaled: values.Value, what: str) -> Finding:
    return program.finding(
        StatisticsFromAllData,
        "mean and spread are taken from all rows, before they are split",
        "what is split was scaled by statistics of its own rows, the held-out ones among them",
        at=scaled if isinstance(scaled, values.Tensor) else split,
        related=[(split, what)],
        help="split first; take the statistics from the training rows, and scale both by them",
    )


def _is_standardised(value: values.Value) -> bool:
    """Whether it is ``(x - x.mean(0)) / x.std(0)``, or the same by the least and the largest."""
    top, by = _two(value, "div")
    x, middle = _two(top, "sub")
    if x is None:
        return False
    by = _two(by, "add")[0] or by  # a little is added to a spread that may be 0
    largest, least = _two(by, "sub")
    range_of = _is_of(largest, x, "max") and _is_of(least, x, "min") and _is_of(middle, x, "min")
    return range_of or (_is_of(middle, x, "mean") and _is_of(by, x, "std"))


def _two(value: values.Value | None, op: str) -> tuple[values.Value | None, values.Value | None]:
    """The two sides of an operation."""
    made = value.op if isinstance(value, values.Tensor) else value.via if isinstance(value, values.Unknown) else ""
    inputs = value.inputs if isinstance(value, (values.Tensor, values.Unknown)) and made == op else ()
    return (inputs[0], inputs[1]) if len(inputs) == 2 else (None, None)


def _is_of(value: values.Value | None, x: values.Value, name: str) -> bool:
    """Whether it is this statistic of ``x``, over its rows."""
    if isinstance(value, values.Tensor) and value.op == name:
        given, named = value.inputs, [one for key, one in value.options.items() if key in ("dim", "axis")]
    elif isinstance(value, values.Unknown) and value.via == "call" and value.name == name:
        given, named = value.inputs, []
    else:
        return False
    along = [values.constant(one) for one in (*given[1:], *named)]
    return bool(given) and given[0] is x and all(one in (0, None) or one is True for one in along)


_FOLDS = re.compile(r"\w*(KFold|ShuffleSplit|LeaveOneOut|TimeSeriesSplit)\.split")


def _learns(event: read.Operated) -> bool:
    """Whether a transformer takes something from the rows that it is given."""
    kind, _, method = event.name.rpartition(".")
    if method not in ("fit", "fit_transform") or len(event.args) < 2:
        return False
    name = kind.rpartition(".")[2]
    if name != "Pipeline" or not isinstance(event.args[0], values.Object):
        return name in LEARN
    steps = [one for given in event.args[0].args for one in ancestors(given) if isinstance(one, values.Object)]
    return method == "fit_transform" and any(one.name in LEARN for one in steps)


def _split(event: read.Operated) -> list[values.Value]:
    """What is split into a training part and a held-out one, with all that went into it."""
    if event.name == "sklearn.model_selection.train_test_split":
        return list(ancestors(event.args[0])) if event.args else []
    if _FOLDS.fullmatch(event.name):
        return list(ancestors(event.args[1])) if len(event.args) > 1 else []
    data = event.args[0] if event.name == "torch.utils.data.random_split" and event.args else None
    inside: tuple[values.Value, ...]
    if isinstance(data, values.Object) and isinstance(data.cls, values.Class):
        inside = tuple(one for one in data.attrs.values() if isinstance(one, (values.Tensor, values.Unknown)))
    else:
        inside = data.args[:1] if isinstance(data, values.Object) and data.name == "TensorDataset" else ()
    return [one for given in inside for one in ancestors(given)]


def _side(rows: values.Value) -> tuple[values.Value, int] | None:
    """Which split's part rows are, and which part of it: 0 is the first array's training rows, 1 those held out."""
    if not isinstance(rows, values.Unknown) or rows.via != "[]" or not rows.name.isdigit():
        return None
    of = rows.of
    return (of, int(rows.name)) if isinstance(of, values.Unknown) and of.name == "train_test_split" else None


def _on_both_sides(fits: list[read.Operated]) -> read.Operated | None:
    """The fit on the training rows, where the last one is on those that were held out from them."""
    last = _side(fits[-1].args[1])
    for fit in fits[:-1] if last is not None and last[1] % 2 else ():
        one = _side(fit.args[1])
        if last is not None and one is not None and one[0] is last[0] and one[1] == last[1] - 1:
            return fit if fit.name.partition(".")[0] == fits[-1].name.partition(".")[0] else None
    return None


def _fitted_again(program: Program, event: read.Operated, fit: read.Operated) -> Finding:
    name = event.name.partition(".")[0]
    return program.finding(
        StatisticsFromAllData,
        f"{name} is fitted on the held-out rows: they are scaled by their own statistics",
        "it was fitted on the training rows before, and the model knows those numbers",
        at=event,
        related=[(fit, "fitted on the training rows")],
        help="only `transform` the held-out rows, with what was fitted on the training rows",
    )


def _only_applied(program: Program, event: read.Operated, fit: read.Operated) -> Fix | None:
    method = getattr(getattr(event.node, "func", None), "attr", None)
    same = event.args[0] is fit.args[0] and event.name.endswith(".fit_transform") and len(event.args) == 2
    return together("transform the held-out rows", put(program, method, "transform")) if method and same else None


def _goes_in(fit: read.Operated, whole: list[values.Value]) -> bool:
    """Whether what is split was made by the transformer."""
    scaler = fit.args[0]
    return any(one is fit.result or (isinstance(one, values.Unknown) and one.of is scaler) for one in whole)


def _is_split(rows: values.Value) -> bool:
    """Whether what it was fitted on is a part of a split already: then the later one is a second split."""
    return any(isinstance(one, values.Unknown) and one.name == "train_test_split" for one in ancestors(rows))


FIRES = {
    "by hand, above random_split": """
        raw = torch.rand(150, 6) * torch.tensor([1.0, 5.0, 20.0, 3.0, 9.0, 100.0])
        data = TensorDataset((raw - raw.mean(0)) / raw.std(0), torch.randint(0, 2, (150,)))
        train, val = random_split(data, [120, 30])
        model = nn.Linear(6, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(3):
            for x, y in DataLoader(train, batch_size=30, shuffle=True):
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()
            with torch.no_grad():
                for x, y in DataLoader(val, batch_size=30):
                    model(x)
    """,
    "scaler fitted first": """
        from sklearn.preprocessing import MinMaxScaler
        x = np.random.rand(120, 5) * 40
        x = torch.tensor(MinMaxScaler().fit_transform(x), dtype=torch.float32)
        y = x.sum(1, keepdim=True)
        model = nn.Linear(5, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(3):
            for rows in torch.randperm(90).split(30):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                F.mse_loss(model(x[90:]), y[90:])
    """,
    "a series scaled whole, then cut into windows": """
        from sklearn.preprocessing import StandardScaler
        series = np.cumsum(np.random.randn(260)).reshape(-1, 1)
        series = torch.tensor(StandardScaler().fit_transform(series), dtype=torch.float32).squeeze(1)
        w = series.unfold(0, 9, 1)
        x, y = w[:, :8].unsqueeze(-1), w[:, 8:]
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn, self.out = nn.GRU(1, 8, batch_first=True), nn.Linear(8, 1)
            def forward(self, x):
                return self.out(self.rnn(x)[0][:, -1])
        model = Net()
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(3):
            for rows in torch.randperm(190).split(38):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                F.mse_loss(model(x[200:]), y[200:])
    """,
}

SILENT = {
    "fitted on the training part": """
        from sklearn.preprocessing import StandardScaler
        raw = np.random.rand(150, 6) * 30
        scaler = StandardScaler().fit(raw[:120])
        xt, xv = (torch.tensor(scaler.transform(part), dtype=torch.float32) for part in (raw[:120], raw[120:]))
        yt, yv = torch.randn(120, 1), torch.randn(30, 1)
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(3):
            for rows in torch.randperm(120).split(30):
                opt.zero_grad()
                F.mse_loss(model(xt[rows]), yt[rows]).backward()
                opt.step()
            with torch.no_grad():
                F.mse_loss(model(xt), yt), F.mse_loss(model(xv), yv)
    """,
    "data that came standardised": """
        from sklearn.datasets import load_diabetes
        x, y = load_diabetes(return_X_y=True)
        x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None] / 300
        model = nn.Linear(10, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(3):
            for rows in torch.randperm(350).split(50):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                F.mse_loss(model(x[350:]), y[350:])
    """,
    "pictures by a constant": """
        from sklearn.datasets import load_digits
        d = load_digits()
        x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
        model = nn.Linear(64, 10)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(2):
            for rows in torch.randperm(1500).split(100):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                model(x[1500:])
    """,
}

READ_FIRES = {
    "the weights of words": """
        import torch
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.model_selection import train_test_split
        texts, labels = load(path)
        features = TfidfVectorizer(max_features=200).fit_transform(texts).toarray()
        a, b, ya, yb = train_test_split(features, labels, test_size=0.2)
    """,
    "each target's mean, and components": """
        import torch
        from sklearn.decomposition import TruncatedSVD
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import TargetEncoder
        X = TruncatedSVD(20).fit_transform(TargetEncoder().fit_transform(X, y))
        a, b, ya, yb = train_test_split(X, y)
    """,
    "in a class, cut by Subset": """
        # folds by hand, in a class
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Subset, TensorDataset
        class Task:
            def __init__(self, frame):
                values = torch.tensor(frame.values, dtype=torch.float32)
                x, y = values[:, :-1], values[:, -1:]
                low, high = x.min(0).values, x.max(0).values
                x = (x - low) / (high - low)
                data = TensorDataset(x, y)
                n = int(len(data) * 0.8)
                order = torch.randperm(len(data))
                self.train = DataLoader(Subset(data, order[:n]), batch_size=32, shuffle=True)
                self.val = DataLoader(Subset(data, order[n:]), batch_size=100)
                self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
                self.opt = torch.optim.Adam(self.model.parameters())
            def fit(self):
                for epoch in range(5):
                    self.model.train()
                    for a, b in self.train:
                        self.opt.zero_grad()
                        nn.functional.mse_loss(self.model(a), b).backward()
                        self.opt.step()
                    self.model.eval()
                    with torch.no_grad():
                        print(sum((self.model(a) - b).square().sum().item() for a, b in self.val))
        import pandas as pd
        Task(pd.read_csv("x.csv")).fit()
    """,
    "by hand, cut by a mask": """
        import numpy as np, torch
        from torch import nn
        X = np.random.rand(1000, 8).astype("float32") * 9
        y = (X[:, 0] > 3).astype("int64")
        X = (X - X.mean(0)) / X.std(0)
        mask = np.random.rand(len(X)) < 0.8
        tx, vx = torch.from_numpy(X[mask]), torch.from_numpy(X[~mask])
        ty, vy = torch.from_numpy(y[mask]), torch.from_numpy(y[~mask])
        model = nn.Linear(8, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(5):
            opt.zero_grad()
            nn.functional.cross_entropy(model(tx), ty).backward()
            opt.step()
            with torch.no_grad():
                print((model(vx).argmax(1) == vy).float().mean().item())
    """,
    "a scaler, cut by a permutation": """
        import numpy as np, torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        from sklearn.preprocessing import StandardScaler
        rng = np.random.default_rng(0)
        X = rng.normal(3, 5, (1000, 8)); y = (X[:, 0] > 3).astype("int64")
        X = StandardScaler().fit_transform(X)
        order = rng.permutation(len(X))
        train_idx, val_idx = order[:800], order[800:]
        train = TensorDataset(torch.tensor(X[train_idx], dtype=torch.float32), torch.tensor(y[train_idx]))
        val = TensorDataset(torch.tensor(X[val_idx], dtype=torch.float32), torch.tensor(y[val_idx]))
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        train_loader = DataLoader(train, batch_size=32, shuffle=True)
        val_loader = DataLoader(val, batch_size=100)
        for epoch in range(5):
            model.train()
            for a, b in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(a), b).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                print(sum((model(a).argmax(1) == b).sum().item() for a, b in val_loader) / len(val))
    """,
    "by hand, cut by hand": """
        import torch
        from torch import nn
        torch.manual_seed(0)
        X = torch.randn(1000, 8) * 5 + 3
        y = (X[:, 0] + X[:, 1] > 6).long()
        X = (X - X.mean(0)) / X.std(0)
        X_train, X_val = X[:800], X[800:]
        y_train, y_val = y[:800], y[800:]
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(5):
            model.train()
            for idx in torch.randperm(800).split(32):
                opt.zero_grad()
                nn.functional.cross_entropy(model(X_train[idx]), y_train[idx]).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                print((model(X_val).argmax(1) == y_val).float().mean().item())
    """,
    "mean and std by hand, in a data set": """
        import torch
        from sklearn.datasets import load_breast_cancer
        from torch.utils.data import Dataset, random_split
        class Rows(Dataset):
            def __init__(self):
                raw = load_breast_cancer()
                values = torch.tensor(raw.data, dtype=torch.float32)
                mean, std = values.mean(dim=0), values.std(dim=0)
                self.values = (values - mean) / (std + 1e-6)
                self.labels = torch.tensor(raw.target)
            def __len__(self):
                return len(self.labels)
            def __getitem__(self, i):
                return self.values[i], self.labels[i]
        train, val = random_split(Rows(), [0.8, 0.2])
        net = torch.nn.Linear(30, 2)
    """,
    "the least and the largest, by numpy": """
        import numpy as np
        import torch
        from sklearn.model_selection import train_test_split
        def load(path):
            X = np.load(path)
            X = (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0))
            return train_test_split(X, np.load("y.npy"))
        net = torch.nn.Linear(30, 2)
        loss = net(torch.tensor(load("x.npy")[0])).sum()
        loss.backward()
    """,
    "scaled, then folded": """
        import torch
        from sklearn.model_selection import StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        X = make_pipeline(StandardScaler()).fit_transform(X).astype("float32")
        for train, val in StratifiedKFold(5).split(X, y):
            fit(X[train], X[val])
    """,
    "scaled, then split by torch": """
        import torch
        from sklearn.preprocessing import StandardScaler
        from torch.utils.data import TensorDataset, random_split
        X = torch.tensor(StandardScaler().fit_transform(X), dtype=torch.float32)
        train, val = random_split(TensorDataset(X, torch.tensor(y)), [0.8, 0.2])
    """,
    "fitted on both sides": """
        import torch
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import StandardScaler
        X_train, X_test, y_train, y_test = train_test_split(X, y)
        scaler = StandardScaler()
        X_train = scaler.fit_transform(X_train)
        X_test = scaler.fit_transform(X_test)
    """,
    "scaled, then split": """
        import torch
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import StandardScaler
        X = StandardScaler().fit_transform(X)
        a, b, c, d = train_test_split(X, y)
    """,
    "in two steps": """
        import torch
        from sklearn.feature_selection import SelectKBest
        from sklearn.model_selection import train_test_split
        best = SelectKBest(k=5)
        best.fit(X, y)
        a, b, c, d = train_test_split(best.transform(X), y)
    """,
}

READ_SILENT = {
    "words counted by the training texts, and what learns nothing": """
        import torch
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import OneHotEncoder
        texts, labels, groups = load(path)
        groups = OneHotEncoder().fit_transform(groups).toarray()
        hashed = HashingVectorizer().fit_transform(texts).toarray()
        a, b, c, d, e, f, ya, yb = train_test_split(texts, texts, groups, hashed, labels)
        vectorizer = TfidfVectorizer()
        a, b = vectorizer.fit_transform(a).toarray(), vectorizer.transform(b).toarray()
    """,
    "each row by its own statistics": """
        # time series normalised per window; trained on the first part of each
        import torch
        from torch import nn
        X = torch.randn(1000, 8) * 5 + 3
        y = (X[:, 0] + X[:, 1] > 6).long()
        X = (X - X.mean(1, keepdim=True)) / X.std(1, keepdim=True)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(5):
            for idx in torch.randperm(800).split(32):
                opt.zero_grad()
                nn.functional.cross_entropy(model(X[idx]), y[idx]).backward()
                opt.step()
            with torch.no_grad():
                print((model(X[800:]).argmax(1) == y[800:]).float().mean().item())
    """,
    "cut by hand, fitted on the training rows": """
        import numpy as np, torch
        from torch import nn
        from sklearn.preprocessing import StandardScaler
        X = np.random.rand(1000, 8) * 9
        y = (X[:, 0] > 3).astype("int64")
        scaler = StandardScaler().fit(X[:800])
        X = scaler.transform(X)
        tx, vx = torch.tensor(X[:800], dtype=torch.float32), torch.tensor(X[800:], dtype=torch.float32)
        ty, vy = torch.from_numpy(y[:800]), torch.from_numpy(y[800:])
        model = nn.Linear(8, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(5):
            opt.zero_grad()
            nn.functional.cross_entropy(model(tx), ty).backward()
            opt.step()
            with torch.no_grad():
                print((model(vx).argmax(1) == vy).float().mean().item())
            if epoch == 3:  # k-fold of the training part
                pass
    """,
    "cut by hand, by the statistics of the training rows": """
        import numpy as np, torch
        from torch import nn
        X = np.random.rand(1000, 8).astype("float32") * 9
        y = (X[:, 0] > 3).astype("int64")
        n_train = int(0.8 * len(X))
        mean, std = X[:n_train].mean(axis=0), X[:n_train].std(axis=0)
        X = (X - mean) / (std + 1e-8)
        tx, vx = torch.from_numpy(X[:n_train]), torch.from_numpy(X[n_train:])
        ty, vy = torch.from_numpy(y[:n_train]), torch.from_numpy(y[n_train:])
        def main():
            model = nn.Linear(8, 2)
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in range(5):
                for i in range(0, n_train, 50):
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(tx[i:i+50]), ty[i:i+50]).backward()
                    opt.step()
                with torch.no_grad():
                    print((model(vx).argmax(1) == vy).float().mean().item())
        main()
    """,
    "each row by itself, by the training rows, and a second split": """
        import numpy as np
        import torch
        from sklearn.model_selection import train_test_split
        from torch.utils.data import TensorDataset, random_split
        X, y = np.load("x.npy"), np.load("y.npy")
        rows = torch.tensor(X)
        rows = (rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True)
        a, b = random_split(TensorDataset(rows, torch.tensor(y)), [0.8, 0.2])
        rest, test, y_rest, y_test = train_test_split(X, y)
        rest = (rest - rest.mean(0)) / rest.std(0)
        train, val, y_train, y_val = train_test_split(rest, y_rest)
        whole = (X - X[:100].mean(0)) / X[:100].std(0)
        c, d = train_test_split(whole)
        e, f = train_test_split(X / 255)
        net = torch.nn.Linear(4, 2)
    """,
    "in each fold, a second split, another transformer": """
        import torch
        from sklearn.model_selection import KFold, train_test_split
        from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
        from sklearn.pipeline import make_pipeline
        X = make_pipeline(Normalizer()).fit_transform(X)
        for train, val in KFold(5).split(X):
            scaler = StandardScaler().fit(X[train])
            fit(scaler.transform(X[train]), scaler.transform(X[val]))
        a, b, c, d = train_test_split(X, y)
        scaler = MinMaxScaler()
        a, b = scaler.fit_transform(a), scaler.transform(b)
        labels = StandardScaler()
        c, d = labels.fit_transform(c), labels.transform(d)
    """,
    "split first": """
        import torch
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import StandardScaler
        rest, test, y_rest, y_test = train_test_split(X, y)
        scaler = StandardScaler().fit(rest)
        train, val, y_train, y_val = train_test_split(scaler.transform(rest), y_rest)
    """,
}
