"""Validation runs in train mode: dropout is at work, or batch statistics are.

Sees: passes over held-out samples, through which no backward goes, of a model that is trained in between; its root is
in train mode, and it has dropout or batch statistics.

Why it matters: with dropout the figures are those of a crippled network, and differ each time. Batch normalisation
uses the statistics of the validation batch instead of those learnt, and even learns from it.

Usual causes: ``model.eval()`` is not called before validation; ``model.eval`` stands there without its brackets;
another model is switched than the one that is called.

Fix: call ``model.eval()`` before validation, and ``model.train()`` after it.
"""

from __future__ import annotations

import linecache
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Evaluated, ForwardFailed
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.meant import means_held_out
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.modes import rested, woken
from trueloop.doctor.source.provenance import feeds
from trueloop.doctor.source.ritual import is_stepped, is_trained, learned_from, optimizers, used_for_training
from trueloop.doctor.source.values import Value
from trueloop.doctor.source.ways import Run, common_loop
from trueloop.doctor.written import says

if TYPE_CHECKING:
    from trueloop.doctor.seen import Round
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

DRAWS = 3  # passes over the same samples in one round: Monte-Carlo dropout
ON_PURPOSE = ("monte", "mc_", "mc dropout", "mcdropout", "mc-dropout", "uncertain", "bayes", "update_bn", "recalib")
LOOPS = ("For", "GeneratorExp", "ListComp")
CALIBRATES = ("calibrat", "running_stat", "running stat", "bn_stat", "bn stat", "batchnorm stat", "batch_stat")
NOT_CALLED = re.compile(r"^\s*[\w.]+\.eval\s*(#.*)?$")
ABOVE = 12  # lines above the pass in which `model.eval` without brackets is looked for


class EvaluationInTrainMode(Rule):
    """Knows it by the modes of the layers at the time of the pass, and by what the pass was for."""

    name = "evaluation-in-train-mode"
    code = 201
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._rounds: dict[int, int] = {}  # model -> evaluations in train mode
        self._told: set[int] = set()
        self._right = 0

    def evaluated(self, fact: Evaluated) -> Iterator[Finding]:
        of = fact.of
        if not of.evaluates or of.data != "held-out":
            return
        wrong = [one for one in of.passes if one.training and one.moving]
        if not wrong:
            self._right += any(not one.training and one.resting for one in of.passes)
            return
        number = of.model.number
        if number in self._told or _draws(of) or says(wrong[0].place, (*ON_PURPOSE, *CALIBRATES)):
            return
        self._rounds[number] = self._rounds.get(number, 0) + 1
        again = self._rounds[number] > 1 or (of.again and of.loader is None)
        if not again and not of.last:
            return
        self._told.add(number)
        first = wrong[0]
        layers = dict(of.model.layers)
        named = ", ".join(
            f"{name or 'itself'} ({type(layers[name]).__name__})" for name in first.moving[:4] if name in layers
        )
        more = f" and {len(first.moving) - 4} more" if len(first.moving) > 4 else ""
        yield self.finding(
            f"{of.model.kind} is evaluated in train mode: {named}{more} at work",
            f"{len(wrong)} of {len(of.passes)} passes over held-out samples after step {of.step} were made in train "
            "mode, and no backward went through them",
            place=first.place,
            related=[(_not_called(first.place), "`eval` is named here, and not called")],
        )

    def forward_failed(self, fact: ForwardFailed) -> Iterator[Finding]:
        of = fact.of
        if of is None or of.grad or not of.training or of.model.first_step is None or of.model.number in self._told:
            return
        if "more than 1 value per channel" in str(fact.error):
            self._told.add(of.model.number)
            yield self.finding(
                f"{of.model.kind} is evaluated in train mode, in which its batch statistics need more than one sample",
                f"{fact.name or of.model.kind} raised: {fact.error}",
                place=of.place,
            )

    def passed(self) -> str | None:
        return f"{self._right} evaluations were made in eval mode" if self._right else None


def _draws(of: Round) -> bool:
    drawn = Counter(one.samples for one in of.passes if one.samples)
    return bool(drawn) and max(drawn.values()) >= DRAWS


def _not_called(place: Place | None) -> Place | None:
    if place is None:
        return None
    for line in range(place.line, max(0, place.line - ABOVE), -1):
        if NOT_CALLED.match(linecache.getline(place.file, line)):
            return Place(place.file, line)
    return None


def in_source(program: Program) -> Iterator[Checked]:
    """A model that the run trains is called without gradients, for a loss or a metric, and each time in train mode."""
    for run in program.runs:
        if not run.complete or _take_turns(run):  # by habit, a GAN draws samples in train mode
            continue
        by_node: dict[int, list[read.Called]] = {}
        for call in run.of(read.Called):
            if call.grad is False or _forgot_both(program, run, call):
                by_node.setdefault(id(call.node), []).append(call)
        for calls in by_node.values():
            first, last = calls[0], calls[-1]
            if not all(call.training and _wakes(call) for call in calls) or not is_trained(run, last.target):
                continue
            if not is_stepped(run, last.target) or used_for_training(run, last.result) or not _judged(run, last):
                continue
            if any(event.name == "step" and _acts(last, event) for event in run.of(read.Escaped)):
                continue  # a policy acts, in the mode that it learns in
            near = program.text_around(first, above=6).lower()
            if any(word in near for word in (*ON_PURPOSE, *CALIBRATES)):
                continue
            named = first.layers[0][0] if first.layers else "its layers"
            asked = first.layers is None
            finding = program.finding(
                EvaluationInTrainMode,
                f"the model is evaluated in train mode: {named} {'work' if asked else 'works'} as in training",
                f"{'gradients are off' if first.grad is False else 'held-out batches go through it'} here, and nothing "
                "put the model into eval mode since it was trained",
                at=first,
                certainty="likely" if asked else "certain",
                help="call `model.eval()` before the evaluation, and `model.train()` before the next epoch",
            )
            yield Checked(finding, _mended(program, run, first))


def _take_turns(run: Run) -> bool:
    """Whether two optimizers step in one turn of a loop; those of folds and phases come one after the other."""
    if len(optimizers(run)) < 2:
        return False
    first: dict[tuple[int, int], Value] = {}
    for event in run.of(read.Stepped):
        if not event.at.loops:
            return True
        for turn in event.at.loops:
            if first.setdefault((turn.loop, turn.number), event.target) is not event.target:
                return True
    return False


def _forgot_both(program: Program, run: Run, call: read.Called) -> bool:
    """Whether a pass is an evaluation though gradients are on: by its loader's name, and what is done with it."""
    if call.grad is not True or call.layers is None or not call.at.loops or any(run.of(read.GradientsUsed)):
        return False
    unit = program.unit
    above: Any = next((one for one in blocks.around(unit, call.node) if blocks.kind(one) in LOOPS), None)
    if above is None or not means_held_out(*blocks.names((above if hasattr(above, "iter") else above.for_in).iter)):
        return False
    same = [one for one in run.of(read.Called) if one.node is call.node]
    return not any(used_for_training(run, one.result) for one in same)


def _mended(program: Program, run: Run, call: read.Called) -> Fix | None:
    """Eval mode before the evaluation; train mode before the training that comes again, unless it is set there."""
    trained = [e for e in run.of(read.Called) if e.target is call.target and any(learned_from(run, e))]
    if any(event.node is call.node for event in trained):
        return None  # one line does both
    edits = [rested(program, run, call)]
    again = next((e for e in trained if common_loop(e.at, call.at) is not None or _is_later(run, e, call)), None)
    woken_there = (e for e in run.of(read.ModeSet) if e.target is call.target and e.training)
    if again is not None and not any(common_loop(e.at, call.at) is not None for e in woken_there):
        edits.append(woken(program, again, [call]))
    return together("evaluate in eval mode", *edits)


def _is_later(run: Run, one: read.Called, other: read.Called) -> bool:
    return run.events.index(one) > run.events.index(other)


def _acts(call: read.Called, event: read.Escaped) -> bool:
    """Whether what the model says is handed on: ``env.step(action)``."""
    return any(feeds(call.result, one) for one in event.values)


def _wakes(call: read.Called) -> bool:
    """Whether some layer does another thing than in eval mode; of an unknown model, whether its mode is set."""
    if call.layers is None:
        return call.asked
    return any(training for _, training in call.layers)


def _judged(run: Run, call: read.Called) -> bool:
    """Whether what the model says is compared with something: a loss, a metric, a decision."""
    if any(feeds(call.result, event.result) for event in run.of(read.LossCalled)):
        return True
    done: list[read.Operated | read.Escaped] = [*run.of(read.Operated), *run.of(read.Escaped)]
    return any(
        event.name.rpartition(".")[2] in ("argmax", "sigmoid", "softmax", "topk", "eq", "max")
        and feeds(call.result, event.result)
        for event in done
    )


FIRES = {
    "dropout in every epoch, no loader": """
        x, y = torch.randn(120, 8), torch.randint(0, 3, (120,))
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 3))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(4):
            for rows in torch.randperm(80).split(20):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                print((model(x[80:]).argmax(1) == y[80:]).float().mean().item())
    """,
    "once at the end": """
        x, y = torch.randn(120, 8), torch.randn(120, 1)
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for step in range(30):
            opt.zero_grad()
            F.mse_loss(model(x[:90]), y[:90]).backward()
            opt.step()
        with torch.no_grad():
            print(F.mse_loss(model(x[90:]), y[90:]).item())
    """,
    "a full batch, evaluated at every step": """
        x, y = torch.randn(60, 8), torch.randn(60, 1)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(30):
            loss = F.mse_loss(model(x[:40]), y[:40])
            opt.zero_grad()
            loss.backward()
            opt.step()
            with torch.no_grad():
                val_loss = F.mse_loss(model(x[40:]), y[40:])
    """,
    "loaders": """
        data = TensorDataset(torch.randn(120, 8), torch.randn(120, 1))
        train, val = random_split(data, [90, 30])
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in DataLoader(train, batch_size=10, shuffle=True):
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            model.eval
            with torch.no_grad():
                total = sum(F.mse_loss(model(a), b).item() for a, b in DataLoader(val, batch_size=10))
    """,
}

SILENT = {
    "Monte-Carlo dropout": """
        x, y = torch.randn(60, 8), torch.randn(60, 1)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(30):
            opt.zero_grad()
            F.mse_loss(model(x[:40]), y[:40]).backward()
            opt.step()
        model.train()
        with torch.no_grad():
            draws = torch.stack([model(x[40:]) for _ in range(20)])
        print(draws.std(0).mean().item())
    """,
    "pseudo labels at every step": """
        x, y, more = torch.randn(40, 8), torch.randint(0, 3, (40,)), torch.randn(80, 8)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 3))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(6):
            for rows in torch.arange(80).split(20):
                with torch.no_grad():
                    guess = model(more[rows]).argmax(1)
                strong = more[rows] + 0.1 * torch.randn(20, 8)
                loss = F.cross_entropy(model(x), y) + F.cross_entropy(model(strong), guess)
                opt.zero_grad()
                loss.backward()
                opt.step()
    """,
    "a generator with batch statistics": """
        G = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        D = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        fixed, ones, zeros = torch.randn(16, 4), torch.ones(16, 1), torch.zeros(16, 1)
        bce = nn.BCEWithLogitsLoss()
        for step in range(40):
            with torch.no_grad():
                fake = G(torch.randn(16, 4))
            od.zero_grad()
            (bce(D(torch.randn(16, 2)), ones) + bce(D(fake), zeros)).backward()
            od.step()
            og.zero_grad()
            bce(D(G(torch.randn(16, 4))), ones).backward()
            og.step()
            if step % 10 == 9:
                with torch.no_grad():
                    samples = G(fixed)
    """,
    "rollouts before each update": """
        policy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 2))
        opt = torch.optim.Adam(policy.parameters(), lr=1e-3)
        for iteration in range(10):
            seen, taken = [], []
            with torch.no_grad():
                for _ in range(20):
                    seen.append(torch.randn(1, 4))
                    taken.append(torch.distributions.Categorical(logits=policy(seen[-1])).sample())
            for _ in range(4):
                logp = torch.distributions.Categorical(logits=policy(torch.cat(seen))).log_prob(torch.cat(taken))
                opt.zero_grad()
                (-logp * torch.randn(20)).mean().backward()
                opt.step()
    """,
    "eval mode": """
        x, y = torch.randn(60, 8), torch.randn(60, 1)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(10):
            model.train()
            opt.zero_grad()
            F.mse_loss(model(x[:40]), y[:40]).backward()
            opt.step()
            model.eval()
            with torch.no_grad():
                val_loss = F.mse_loss(model(x[40:]), y[40:])
    """,
}

READ_FIRES = {
    "folds, and a head that is forgotten": """
        import torch
        from torch import nn
        from torch.nn.functional import cross_entropy
        def fold(a, ya, b, yb):
            body, head = nn.Sequential(nn.Linear(13, 24), nn.ReLU()), nn.Sequential(nn.Dropout(0.4), nn.Linear(24, 3))
            opt = torch.optim.Adam([*body.parameters(), *head.parameters()])
            for _ in range(9):
                body.train()
                head.train()
                for rows in torch.randperm(len(ya)).split(24):
                    opt.zero_grad()
                    cross_entropy(head(body(a[rows])), ya[rows]).backward()
                    opt.step()
                body.eval()
                with torch.no_grad():
                    print((head(body(b)).argmax(1) == yb).float().mean().item())
        for known, others in folds:
            fold(X[known], y[known], X[others], y[others])
    """,
    "neither eval nor no_grad": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, y in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
        right = 0
        for x, y in val_loader:
            right += (net(x).argmax(1) == y).sum().item()
    """,
    "a transformer's encoder": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            net.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                print(nn.functional.cross_entropy(net(held_out), labels).item())
    """,
    "eval is not called": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            right = 0
            with torch.no_grad():
                for x, y in val_loader:
                    right += (net(x).argmax(1) == y).sum().item()
    """,
    "in functions that are handed the model": """
        import torch
        from torch import nn
        def validate(model, loader):
            total = 0.0
            with torch.no_grad():
                for x, y in loader:
                    total += nn.functional.cross_entropy(model(x), y).item()
            return total
        def fit(model, train_loader, val_loader):
            opt = torch.optim.Adam(model.parameters())
            for epoch in range(3):
                model.train()
                for x, y in train_loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    opt.step()
                print(validate(model, val_loader))
    """,
    "once more at the end of a trainer's epoch": """
        import torch
        from torch import nn
        class Trainer:
            def __init__(self):
                self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
                self.opt = torch.optim.Adam(self.net.parameters())
            def train(self, loader):
                for x, y in loader:
                    self.opt.zero_grad()
                    nn.functional.cross_entropy(self.net(x), y).backward()
                    self.opt.step()
            @torch.no_grad()
            def validate(self, loader):
                return sum(nn.functional.cross_entropy(self.net(x), y).item() for x, y in loader)
            def fit(self, a, b):
                for epoch in range(3):
                    self.train(a)
                    print(self.validate(b))
        Trainer().fit(a, b)
    """,
}

READ_SILENT = {
    "a GAN in each fold": """
        import torch
        from torch import nn
        def fold(real):
            G, D = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, 2)), nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.3))
            og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
            for x in real:
                D.zero_grad()
                (D(G(torch.randn(16, 8)).detach()).mean() - D(x).mean()).backward()
                od.step()
                G.zero_grad()
                (-D(G(torch.randn(16, 8))).mean()).backward()
                og.step()
                with torch.no_grad():
                    print((D(G(torch.randn(16, 8))) > 0).float().mean().item(), D(x).sigmoid().mean().item())
        for part in parts:
            fold(part)
    """,
    "gradients are on, and are used": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        def go(loader, train):
            for x, y in loader:
                loss = nn.functional.cross_entropy(net(x), y)
                if train:
                    opt.zero_grad()
                    loss.backward()
                    opt.step()
        for epoch in range(3):
            go(train_loader, True)
            for x, y in dev_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            draws = [net(x).argmax(1) for x in loader for _ in range(10)]
    """,
    "modes set by hand": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            for module in net.modules():
                module.training = False
            with torch.no_grad():
                print(nn.functional.cross_entropy(net(held_out), labels).item())
    """,
    "a generator of the user's sets the mode": """
        import torch
        from contextlib import contextmanager
        from torch import nn
        @contextmanager
        def resting(model):
            was = model.training
            model.eval()
            yield
            model.train(was)
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            net.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with resting(net), torch.no_grad():
                print(nn.functional.cross_entropy(net(held_out), labels).item())
    """,
    "a context of another module's is given the model": """
        import torch
        from torch import nn
        from modes import resting
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            net.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with resting(net), torch.no_grad():
                print(nn.functional.cross_entropy(net(held_out), labels).item())
    """,
    "a decorator of the user's sets the mode": """
        import functools, torch
        from torch import nn
        def resting(function):
            @functools.wraps(function)
            def around(model, *args):
                model.eval()
                try:
                    return function(model, *args)
                finally:
                    model.train()
            return around
        @resting
        @torch.no_grad()
        def judge(model, x, y):
            return nn.functional.cross_entropy(model(x), y).item()
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            print(judge(net, x, y))
    """,
    "a policy acts in the mode that it learns in": """
        import torch
        from torch import nn
        def train(env):
            net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 2))
            opt = torch.optim.Adam(net.parameters())
            state = env.reset()
            while True:
                with torch.no_grad():
                    action = net(state).max(1).indices.view(1, 1)
                state, reward = env.step(action)
                opt.zero_grad()
                nn.functional.mse_loss(net(state).max(1).values, reward).backward()
                opt.step()
    """,
    "eval is called": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            net.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            net.eval()
            with torch.no_grad():
                for x, y in val_loader:
                    print(nn.functional.cross_entropy(net(x), y).item())
    """,
    "no layer has two modes": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
        with torch.no_grad():
            print(nn.functional.cross_entropy(net(x), y).item())
    """,
    "a target in training": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for x, y in loader:
            with torch.no_grad():
                soft = net(x).softmax(1)
            opt.zero_grad()
            nn.functional.cross_entropy(net(x + 0.1), soft).backward()
            opt.step()
    """,
}
