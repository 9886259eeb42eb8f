"""The input is ignored: in training, the model gives the same output for every sample, batch after batch.

Sees: over 20 training passes in a row, on batches of four and more different samples, all outputs of a batch are
equal to a hundred-thousandth of their size. Or the samples are all the same as well, though their classes differ: the
input was lost before the model.

Why it matters: the best that such a model can learn is the mean of the targets.

Usual causes: dead units in a narrow layer; gradients that vanish in a deep net; a softmax over one value; an output
taken from a place that the input does not reach (a wrong time step, a padded position); inputs scaled to nothing; a
vocabulary that knows none of the words.

Fix: compare the outputs of two samples after each layer; the first layer where they are equal is the one to mend.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardEnded, Called, Ended, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.trace import Trace

PASSES = 20
SELDOM = 8  # where few are heard, and the last of them come many steps after the others
SAMPLES = 4
EQUAL = 1e-5
SKIP = 2  # first passes: a last layer may start at zero


class InputIgnored(Rule):
    """Compares the outputs of a batch with each other."""

    name = "input-ignored"
    code = 412
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._same: dict[int, bool] = {}  # a pass's number -> its outputs are equal
        self._alike: set[int] = set()  # models whose last samples were all the same
        self._classes = False  # there are several
        self._row: dict[int, int] = {}
        self._spread: dict[int, float] = {}
        self._told: set[int] = set()
        self._differ = False

    @property
    def _enough(self) -> int:
        return (SELDOM if self.trace.seldom else PASSES) + SKIP

    def called(self, fact: Called) -> None:
        of = fact.of
        if not (of.close and of.needs_grad) or of.model.number in self._told:
            return
        if len(of.samples) < SAMPLES or 1 < len(set(of.samples)) < SAMPLES:
            return
        output = _per_sample(fact, len(of.samples))
        if output is None:
            return
        size = float(output.abs().max())
        spread = float((output.amax(0) - output.amin(0)).max())
        equal = spread <= EQUAL * size  # NaN is not
        self._differ = self._differ or not equal
        self._same[of.number] = equal
        if len(set(of.samples)) == 1:
            self._alike.add(of.model.number)
        else:
            self._alike.discard(of.model.number)
        if equal:
            self._spread[of.model.number] = spread / size if size else 0.0

    def backward_ended(self, fact: BackwardEnded) -> Iterator[Finding] | None:
        found = None
        for one in fact.reached:
            equal = self._same.get(one.number)
            if equal is not None:
                row = self._row.get(one.model.number, 0)
                self._row[one.model.number] = row + 1 if equal else 0
                if row + 1 >= self._enough and equal and one.model.number not in self._told:
                    found = one
        self._same.clear()
        if found is None or (found.model.number in self._alike and (not self._classes or self.trace.alternates)):
            return None
        return self._tell(found.model.number, found.place)

    def loss_called(self, fact: LossCalled) -> None:
        if not self._classes and fact.kind == "cross_entropy":
            target = fact.target
            whole = not target.is_floating_point() and target.dim() == 1 and readable(target)
            self._classes = whole and bool((target != target[0]).any())

    def _tell(self, model: int, place: Place | None) -> Iterator[Finding]:
        self._told.add(model)
        seen = self.trace.models[model]
        yield self.finding(
            f"{seen.kind} ignores its input: over {self._enough} batches its outputs are the same for all samples",
            "the samples are all the same before they reach it, though their classes differ"
            if model in self._alike
            else f"within a batch they differ by {self._spread[model]:.2g} of their size, though the samples differ",
            place=place,
        )

    def ended(self, fact: Ended) -> None:
        self._same.clear()

    def passed(self) -> str | None:
        return "outputs differ from sample to sample" if self._differ and not self._told else None


def _per_sample(fact: Called, samples: int) -> Tensor | None:
    """The first output that has a row for each sample."""
    for tensor in tensors_in(fact.output, limit=4):
        if tensor.dim() and len(tensor) == samples and tensor.is_floating_point() and readable(tensor):
            return tensor.detach().reshape(samples, -1)
    return None


FIRES = {
    "dead before the last layer": """
        model = nn.Sequential(nn.Linear(6, 16), nn.Hardtanh(0, 1), nn.Linear(16, 2))
        nn.init.constant_(model[0].bias, -30.0)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(40):
            x = torch.randn(16, 6)
            opt.zero_grad()
            F.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            opt.step()
    """,
    "the state of a padded step": """
        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn, self.out = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 1)
            def forward(self, x):
                return self.out(torch.zeros_like(self.rnn(x)[0][:, -1]))
        net = Last()
        opt = torch.optim.Adam(net.parameters(), lr=1e-2)
        for step in range(40):
            x = torch.randn(12, 5, 3)
            loss = (net(x).squeeze(1) - x[:, 0, 0]).square().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "a last layer that starts at zero": """
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
        nn.init.zeros_(model[2].weight)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(40):
            x = torch.randn(16, 6)
            opt.zero_grad()
            F.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            opt.step()
    """,
    "the same state again and again": """
        policy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        opt = torch.optim.Adam(policy.parameters(), lr=1e-2)
        for _ in range(40):
            states = torch.eye(3)[:1].repeat(8, 1)
            logs = torch.log_softmax(policy(states), 1)[:, 0]
            loss = -(logs * torch.randn(8)).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}
