"""The best weights were kept without a copy: training went on in them, and they are no longer the best.

Sees: tensors of a ``state_dict()`` that was taken some steps ago are loaded into a model, or saved, and they are still
the very tensors that the optimizer has been changing since. Or a variable called ``best…``, which held no model before,
is the very model that is being trained (nothing is said if weights were saved meanwhile, or copies loaded). In the
text: what ``state_dict()`` gave is loaded or saved after more steps of the same model, or given to a variable called
``best…`` under a condition of the loop that trains.

Why it matters: ``state_dict()`` gives the live tensors. What is restored, saved or reported as the best is the last;
early stopping does nothing.

Usual causes: ``best = model.state_dict()`` (also ``.copy()``, ``dict(...)``, or a comprehension over its items, which
copy the dict and not the tensors); ``best_model = model``.

Fix: ``best = copy.deepcopy(model.state_dict())``, or ``{name: value.clone() for name, value in ...}``, or save to a
file at that moment.
"""

from __future__ import annotations

import ast
import linecache
import weakref
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from trueloop.doctor.facts import Ended, StateLoaded, StateSaved, StateTaken, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.keepers import variables_of
from trueloop.doctor.places import is_users, users_frame
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.mending import replaced
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.provenance import held
from trueloop.doctor.source.ways import Run, common_loop

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LOOKED_AT_EVERY = 5  # steps
KEPT = 200  # so many of the last states are remembered
OBJECTS = 200  # variables of a function that are looked into
SHARE = 0.5  # of a state's floating tensors that must be the old, live ones


class _Taken(NamedTuple):
    module: weakref.ref[nn.Module]
    tensors: dict[int, weakref.ref[Tensor]]  # by the address of their numbers
    step: int
    place: Place | None


class BestWeightsNotCopied(Rule):
    """Knows it by the identity of storage."""

    name = "best-weights-not-copied"
    code = 606
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._taken: list[_Taken] = []
        self._restored = 0
        self._unset: set[str] = set()  # variables called best… that held something else before
        self._alias: Finding | None = None
        self._saved = -1  # the step at which something was first saved

    def stepped(self, fact: Stepped) -> None:
        """Looks now and then whether a variable called ``best…`` is the very model that is being trained."""
        if self._alias is not None or self.trace.heard % LOOKED_AT_EVERY:
            return
        held = {id(parameter) for parameter in fact.optimizer.parameters()}
        for name, value, other, place in _kept_as_best(held):
            if value is None:
                self._unset.add(name)
            elif name in self._unset and place is not None:
                self._alias = self.finding(
                    f"'{name}' is the model itself, not a copy: it goes on being trained after it was kept as the best",
                    f"'{name}' and '{other}' are one object, and {fact.optimizer.kind} steps on its weights at step "
                    f"{self.trace.step}",
                    place=place,
                    related=[(fact.place, "this step changes the best weights as well")],
                )
                return

    def state_taken(self, fact: StateTaken) -> None:
        tensors = {value.data_ptr(): weakref.ref(value) for value in _tensors(fact.state)}
        self._taken.append(_Taken(weakref.ref(fact.module), tensors, self.trace.step, fact.place))
        self._taken = [one for one in self._taken if any(ref() is not None for ref in one.tensors.values())][-KEPT:]

    def state_loaded(self, fact: StateLoaded) -> Iterator[Finding]:
        if not self.trace.step:
            return
        old = self._old(fact.state)
        own = {value.data_ptr() for value in fact.module.parameters()}
        if old is None:
            names = dict(fact.module.named_parameters())
            given = [value for name, value in fact.state.items() if name in names and hasattr(value, "data_ptr")]
            if given and all(value.data_ptr() in own for value in given):
                yield from self._own_loaded(fact, own)
            else:
                self._restored += 1
            return
        itself = old.module() is fact.module or any(address in own for address in old.tensors)
        if not itself and old.step == 0:  # a view of another model that is taken once, and read again and again
            return
        yield self._tell(old, fact.place, "loaded" if itself else "loaded into another model")

    def ended(self, fact: Ended) -> Iterator[Finding]:
        """Another name does no harm to who wrote the best weights to a file, or had a copy as well."""
        if self._alias is not None and not self._restored and not 0 <= self._saved < self.trace.step:
            yield self._alias

    def state_saved(self, fact: StateSaved) -> Iterator[Finding]:
        self._saved = self.trace.step if self._saved < 0 else self._saved
        if not self.trace.step or not self._taken:
            return
        content = fact.content
        parts = [content, *(content.values() if isinstance(content, Mapping) else ())]
        for part in parts:
            if isinstance(part, Mapping) and (old := self._old(part)) is not None and old.step > 0:
                yield self._tell(old, fact.place, "saved")
                return

    def _old(self, state: Mapping[str, Any]) -> _Taken | None:
        """When and where these tensors were taken, if that was some steps ago and they are live still."""
        given = _tensors(state)
        for taken in reversed(self._taken):
            module = taken.module()
            if module is None or taken.step >= self._stepped(module):
                continue
            live = {value.data_ptr() for value in module.parameters()}
            same = [
                value
                for value in given
                if (ref := taken.tensors.get(value.data_ptr())) is not None
                and ref() is value
                and value.data_ptr() in live
            ]
            if same and len(same) >= SHARE * len(given):
                return taken
        return None

    def _stepped(self, module: nn.Module) -> int:
        """The number of steps so far, if an optimizer holds this module's parameters; 0 if none does."""
        own = {id(parameter) for parameter in module.parameters()}
        held = any(seen.steps and any(id(p) in own for p in seen.parameters()) for seen in self.trace.optimizers)
        gone = any(seen.steps and seen.optimizer is None for seen in self.trace.optimizers)  # it lived in a function
        return self.trace.step if held or gone else 0

    def _own_loaded(self, fact: StateLoaded, own: set[int]) -> Iterator[Finding]:
        """A model is loaded from itself: what was kept is another name of it, or of its tensors."""
        if self._alias is not None:
            return
        taken = next((one for one in reversed(self._taken) if any(address in own for address in one.tensors)), None)
        if taken is not None and self._stepped(fact.module):
            yield self.finding(
                "a model is loaded with its own weights of this moment: what was kept is the model itself, not a copy",
                f"all tensors that are loaded at step {self.trace.step} are the model's own",
                place=fact.place,
                certainty="likely",
            )

    def _tell(self, old: _Taken, place: Place | None, done: str) -> Finding:
        return self.finding(
            f"the weights kept at step {old.step} are {done} at step {self.trace.step}, but they are not a copy: they "
            "are the last ones",
            f"the kept tensors are the model's own; {self.trace.step - old.step} optimizer steps changed them since",
            place=old.place or place,
            related=[(place, f"{done} here")],
        )

    def passed(self) -> str | None:
        return f"weights that were loaded {self._restored} times were copies" if self._restored else None


def _kept_as_best(held: set[int]) -> Iterator[tuple[str, object, str, Place | None]]:
    """Variables called ``best…`` in the user's running functions, or in objects that these hold.

    Yields:
        Its name; the model with these parameters, or None if it is no module at all; the model's other name; the line
        that made them one.
    """
    from torch import nn

    frame: FrameType | None = users_frame(2)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            variables = variables_of(frame)
            spaces = [("", variables), *_objects(variables)]
            named = [(prefix + name, value) for prefix, space in spaces for name, value in space.items()]
            for name, value in named:
                if "best" not in name.rpartition(".")[2].lower():
                    continue
                model = isinstance(value, nn.Module) and any(id(p) in held for p in value.parameters())
                others = [key for key, one in named if one is value and "best" not in key.lower()]
                if model and others:
                    yield name, value, others[0], _alias_line(frame.f_code.co_filename, name)
                elif not isinstance(value, nn.Module):
                    yield name, None, "", None
        frame = frame.f_back


def _objects(variables: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What stands in objects of the user's own classes: the trainer, a keeper of the best."""
    from torch import nn

    for name, value in list(variables.items())[:OBJECTS]:
        if isinstance(value, (type, ModuleType)) or not hasattr(value, "__dict__"):
            continue
        made = getattr(type(value).__init__, "__code__", None)
        if name == "self" or (made is not None and is_users(made.co_filename)):
            inside = dict(vars(value))
            if isinstance(value, nn.Module):
                inside.update(value._modules)
            yield f"{name}.", inside


@lru_cache(maxsize=64)
def _alias_line(file: str, name: str) -> Place | None:
    """Where a variable or attribute of this name is set to another variable."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return None
    last = name.rpartition(".")[2]
    for node in ast.walk(tree):
        for target, value in _assigned(node):
            named = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", None)
            if named == last and isinstance(value, (ast.Name, ast.Attribute)):
                return Place(file, target.lineno)
    return None


def _assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each target of an assignment with its value, also where several stand side by side."""
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        yield target, node.value
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)


def _tensors(state: Mapping[str, Any]) -> list[Tensor]:
    import torch

    return [
        value
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.layout == torch.strided
        and not value.is_meta and value.numel()
    ]  # fmt: skip


def in_source(program: Program) -> Iterator[Checked]:
    """What ``state_dict()`` gave is loaded, saved or kept as the best after more steps; or the model itself is."""
    for run in program.runs:
        if not run.complete:
            continue
        told: set[int] = set()
        for number, event in enumerate(run.events):
            if isinstance(event, (read.Operated, read.Escaped)) and id(event.node) not in told:
                checked = _of_state(program, run, number, event)
            elif isinstance(event, read.Remembered) and id(event.node) not in told:
                checked = _of_model(program, run, number, event)
            else:
                continue
            if checked is not None:
                told.add(id(event.node))
                yield checked


def _of_state(program: Program, run: Run, number: int, taken: read.Operated | read.Escaped) -> Checked | None:
    state = taken.result
    model = _whose(taken)
    step = _step_after(run, number, model) if model is not None and isinstance(state, values.Unknown) else None
    if step is None or _through_a_copy(taken.node):
        return None
    later = run.events[run.events.index(step) :]
    use = next((one for one in later if _uses(one, state, taken) and not _is_fresh(taken, one)), None)
    if use is None and not _is_best(run, number, state, step):
        return None
    call: Any = taken.node
    text = f"{{name: value.clone() for name, value in {taken.at.unit.text(call)}.items()}}"
    here = taken.at.unit is program.unit and not call.args
    finding = program.finding(
        BestWeightsNotCopied,
        "the weights are kept without a copy: the steps that follow change them",
        "`state_dict()` gives the live tensors, and what it gave is "
        + ("used after more steps" if use is not None else "called the best while training goes on"),
        at=taken,
        related=[(step, "changes them"), *([(use, "takes them for the earlier ones")] if use is not None else [])],
    )
    return Checked(finding, replaced(program, call, text, "copy each tensor") if here else None)


def _of_model(program: Program, run: Run, number: int, event: read.Remembered) -> Checked | None:
    """``best_model = model`` under a condition, with no copy of its weights anywhere."""
    if not event.at.branches or _keeps_copies(run):
        return None
    step = _step_after(run, number, event.value)
    if step is None or common_loop(step.at, event.at) is None:
        return None
    finding = program.finding(
        BestWeightsNotCopied,
        f"`{event.name}` is the model that goes on training: at the end it has the last weights",
        "the name is given the model itself when its score is the best, and steps follow that change it",
        at=event,
        related=[(step, "changes it")],
        help="keep `copy.deepcopy(model)`, or a copy of its `state_dict()`",
    )
    return Checked(finding)


def _whose(event: read.Operated | read.Escaped) -> values.Value | None:
    """The model whose ``state_dict()`` it is."""
    if isinstance(event, read.Operated):
        return event.args[0] if event.name == "Module.state_dict" else None
    of = event.result.of if isinstance(event.result, values.Unknown) else None
    return of if event.name == "state_dict" else None


def _step_after(run: Run, number: int, model: values.Value) -> read.Stepped | None:
    own = {id(model)} | {id(one) for one in parts(model)}
    for event in (one for one in run.events[number:] if isinstance(one, read.Stepped)):
        if isinstance(event.target, values.Object) and own & held(event.target.option("params", 0))[0]:
            return event
    return None


def _through_a_copy(call: Any) -> bool:
    """``model.cpu().state_dict()``, which may have moved the weights, and so copied them."""
    return type(getattr(call.func, "value", None)).__name__ == "Call"


def _is_fresh(taken: read.Event, use: read.Event) -> bool:
    """Whether it was taken in each turn in which it is used: under no condition that the use is not under as well."""
    loops = [turn.loop for turn in taken.at.loops] == [turn.loop for turn in use.at.loops]
    return loops and bool(taken.at.loops) and set(taken.at.branches) <= set(use.at.branches)


def _uses(event: read.Event, state: values.Value, taken: Any) -> bool:
    if not isinstance(event, (read.Operated, read.Escaped)):
        return False
    if event.name.endswith("load_state_dict"):
        given = event.args[1:] if isinstance(event, read.Operated) else event.values[1:]
        return any(_is_live(one, state) for one in given[:1])
    # one that was made once, before the loop, is meant to follow the weights
    saves = event.name == "torch.save" and isinstance(event, read.Operated) and bool(event.args) and taken.at.loops
    return bool(saves) and isinstance(event, read.Operated) and _holds(event.args[0], state)


def _is_live(value: values.Value, state: values.Value) -> bool:
    """Whether a value holds the tensors that were taken, on every way that it was given one."""
    roots = [_root(one) for one in values.options(value) if values.constant(one, "") is not None]
    return any(one is state for one in roots) and all(
        isinstance(one, values.Unknown) and one.via == "call" and one.name == "state_dict" for one in roots
    )


def _root(value: values.Value) -> values.Value:
    """What a dict was copied from, if its tensors were not: by ``copy()``, ``dict()`` or a comprehension."""
    for _ in range(10):
        inside = None
        if isinstance(value, values.Unknown):
            again = value.via == "call" and value.name in ("items", "copy")
            inside = value.of if again or value.via in ("[]", "each") else None
        elif isinstance(value, values.Items) and value.kind == "dict" and len(value.all()) == 1:
            node: Any = value.node
            plain = type(node).__name__ == "Call" or type(getattr(node, "value", None)).__name__ == "Name"
            inside = value.all()[0] if plain else None
        if inside is None:
            break
        value = inside
    return value


def _holds(value: values.Value, state: values.Value) -> bool:
    if isinstance(value, values.Items):
        return any(_is_live(one, state) for one in value.all())
    return _is_live(value, state)


def _is_best(run: Run, number: int, state: values.Value, step: read.Stepped) -> bool:
    """Whether it is called the best under a condition, steps follow in the same loop, and no file keeps it."""
    named = (one for one in run.events[number:] if isinstance(one, read.Remembered) and _holds(one.value, state))
    first = next(named, None)
    if first is None or not first.at.branches or common_loop(first.at, step.at) is None:
        return False
    if any(event.name == "torch.save" for event in run.of(read.Operated)):
        return False
    handed = (value for event in run.of(read.Escaped) for value in event.values)
    return not any(_holds(value, state) for value in handed)


def _keeps_copies(run: Run) -> bool:
    named = {event.name.rpartition(".")[2] for event in run.of(read.Operated)}
    named |= {event.name for event in run.of(read.Escaped)}
    return bool(named & {"save", "load_state_dict", "state_dict", "save_pretrained", "save_checkpoint"})


FIRES = {
    "the best state is kept as it is": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        best, best_state = 1e9, None
        for epoch in range(4):
            for _ in range(3):
                opt.zero_grad()
                F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
                opt.step()
            with torch.no_grad():
                val = F.mse_loss(model(torch.ones(8, 4)), torch.zeros(8, 1)).item()
            if best_state is None:
                best, best_state = val, model.state_dict()
        model.load_state_dict(best_state)
    """,
    "the dict is copied, its tensors are not": """
        class Keeper:
            def __init__(self, model):
                self.model, self.best = model, None

            def keep(self):
                self.best = {k: v for k, v in self.model.state_dict().items()}

            def restore(self):
                self.model.load_state_dict(self.best)

        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        keeper = Keeper(model)
        opt = torch.optim.Adam(model.parameters())
        for i in range(10):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
            if i == 5:
                keeper.keep()
        keeper.restore()
    """,
    "saved at the end": """
        import io
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(10):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
            if i == 4:
                best = model.state_dict().copy()
        torch.save({"model": best}, io.BytesIO())
    """,
    "the model is kept by reference": """
        def train(net):
            opt = torch.optim.SGD(net.parameters(), lr=0.05)
            best, best_model = 1e9, None
            for epoch in range(6):
                for _ in range(5):
                    opt.zero_grad()
                    F.mse_loss(net(torch.randn(8, 4)), torch.randn(8, 1)).backward()
                    opt.step()
                with torch.no_grad():
                    val = F.mse_loss(net(torch.ones(8, 4)), torch.zeros(8, 1)).item()
                if val < best:
                    best, best_model = val, net
            return best_model

        train(nn.Linear(4, 1))
    """,
    "an object keeps the model by reference": """
        # best_model = model is what it does, one line of many
        class EarlyStopping:
            def __init__(self):
                self.best, self.best_model = 1e9, None

            def __call__(self, loss, model):
                if loss < self.best:
                    self.best, self.best_model = loss, model

        net, stopper = nn.Linear(4, 1), EarlyStopping()
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        for epoch in range(6):
            for _ in range(5):
                opt.zero_grad()
                F.mse_loss(net(torch.randn(8, 4)), torch.randn(8, 1)).backward()
                opt.step()
            with torch.no_grad():
                stopper(F.mse_loss(net(torch.ones(8, 4)), torch.zeros(8, 1)).item(), net)
    """,
    "another name of the same model": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        best_model = model
        for i in range(10):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
        model.load_state_dict(best_model.state_dict())
    """,
}

SILENT = {
    "the best settings are trained again": """
        def train(model):
            opt = torch.optim.SGD(model.parameters(), lr=0.05)
            for _ in range(12):
                opt.zero_grad()
                F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
                opt.step()
            return model

        best_model = None
        for _ in range(2):
            model = train(nn.Linear(4, 1))
        best_model = nn.Linear(4, 1)
        train(best_model)
    """,
    "a population whose best changes": """
        members = []
        for lr in (0.01, 0.02, 0.05):
            net = nn.Linear(4, 1)
            members.append([net, torch.optim.SGD(net.parameters(), lr=lr), 0.0])
        for turn in range(4):
            for member in members:
                net, opt, _ = member
                for _ in range(5):
                    opt.zero_grad()
                    F.mse_loss(net(torch.randn(8, 4)), torch.randn(8, 1)).backward()
                    opt.step()
                member[2] = F.mse_loss(net(torch.ones(8, 4)), torch.zeros(8, 1)).item()
            members.sort(key=lambda one: one[2])
            best_net = members[0][0]
            members[-1][0].load_state_dict(best_net.state_dict())
    """,
    "another name, and a file": """
        import io
        model, best, best_model = nn.Linear(4, 1), 1e9, None
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(6):
            for _ in range(5):
                opt.zero_grad()
                F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
                opt.step()
            if best_model is None:
                best_model, file = model, io.BytesIO()
                torch.save(best_model.state_dict(), file)
        file.seek(0)
        model.load_state_dict(torch.load(file))
    """,
    "a deep copy": """
        import copy
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(10):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
            if i == 4:
                best = copy.deepcopy(model.state_dict())
        model.load_state_dict(best)
    """,
    "clones": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(10):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
            if i == 4:
                best = {k: v.detach().clone() for k, v in model.state_dict().items()}
        model.load_state_dict(best)
    """,
    "a target network": """
        net, target = nn.Linear(4, 2), nn.Linear(4, 2)
        target.load_state_dict(net.state_dict())
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        for i in range(10):
            x = torch.randn(8, 4)
            with torch.no_grad():
                goal = target(x).max(1).values
            opt.zero_grad()
            F.mse_loss(net(x)[:, 0], 0.9 * goal).backward()
            opt.step()
            if i % 3 == 0:
                target.load_state_dict(net.state_dict())
    """,
    "a running average over the state": """
        import copy
        net = nn.Linear(4, 1)
        ema = copy.deepcopy(net)
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        for i in range(10):
            opt.zero_grad()
            F.mse_loss(net(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
            now = net.state_dict()
            for k, v in ema.state_dict().items():
                v.mul_(0.9).add_(now[k], alpha=0.1)
        net.load_state_dict(ema.state_dict())
    """,
}

READ_FIRES = {
    "the dict is made anew, its tensors are not": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters())
        lowest, weights = 1e9, None
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            val = score(model)
            if val < lowest:
                lowest = val
                weights = {name: value for name, value in model.state_dict().items()}
        model.load_state_dict(weights)
    """,
    "the best state is live": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters())
        best, best_state = float("inf"), None
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            val = score(model)
            if val < best:
                best, best_state = val, model.state_dict()
        model.load_state_dict(best_state)
    """,
    "in a trainer, and only the dict is copied": """
        import torch
        from torch import nn
        class Trainer:
            def __init__(self, net):
                self.net = net
                self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1)
                self.kept = None
            def fit(self, loader, val):
                lowest = 1e9
                for epoch in range(20):
                    for x, y in loader:
                        self.opt.zero_grad()
                        loss = nn.functional.mse_loss(self.net(x), y)
                        loss.backward()
                        self.opt.step()
                    error = self.error(val)
                    if error < lowest:
                        lowest = error
                        self.kept = self.net.state_dict().copy()
                self.net.load_state_dict(self.kept)
            def error(self, val):
                with torch.no_grad():
                    return sum(nn.functional.mse_loss(self.net(x), y).item() for x, y in val)
        Trainer(nn.Linear(4, 1)).fit(loader, val)
    """,
    "the model itself": """
        import torch
        from torch import nn
        def train(net, loader, val, epochs=20):
            opt = torch.optim.Adam(net.parameters(), lr=1e-3)
            best, best_model = float("inf"), None
            for epoch in range(epochs):
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(net(x), y).backward()
                    opt.step()
                score = evaluate(net, val)
                if score < best:
                    best = score
                    best_model = net
            return best_model
    """,
    "kept as the best, restored elsewhere": """
        import torch
        import torch.nn.functional as F
        def fit(self, model, loader):
            optimizer = torch.optim.Adam(model.parameters())
            for epoch in range(20):
                for x, y in loader:
                    optimizer.zero_grad()
                    F.mse_loss(model(x), y).backward()
                    optimizer.step()
                if self.is_better(epoch):
                    self.best_weights = {"epoch": epoch, "model": model.state_dict()}
    """,
    "the weights before, for the next fold": """
        import torch
        from torch import nn
        net = nn.Linear(4, 2)
        start = net.state_dict()
        for fold in range(5):
            net.load_state_dict(start)
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            for x, y in folds[fold]:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
}

READ_SILENT = {
    "moved to the CPU, tensor by tensor": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3).cuda()
        opt = torch.optim.Adam(model.parameters())
        best, weights = 0, None
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            acc = score(model)
            if acc > best:
                best, weights = acc, {k: v.cpu() for k, v in model.state_dict().items()}
        model.load_state_dict(weights)
    """,
    "copied": """
        import copy
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters())
        best, best_state, best_model, best_cpu = float("inf"), model.state_dict(), None, None
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            val = score(model)
            if val < best:
                best, best_state = val, copy.deepcopy(model.state_dict())
                best_model = copy.deepcopy(model)
                best_cpu = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        model.load_state_dict(best_state)
        model.load_state_dict(best_cpu)
        torch.save(best_model.state_dict(), "best.pt")
    """,
    "saved at that moment": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters())
        best, best_model = 0, None
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            val = score(model)
            if val > best:
                best = val
                best_state = {"epoch": epoch, "model": model.state_dict()}
                torch.save(best_state, "best.pt")
                best_model = model
        model.load_state_dict(torch.load("best.pt")["model"])
    """,
    "taken and saved under one condition; handed to who saves it": """
        import torch
        from torch import nn
        from mine import keep
        def train(model, loader, main, best=0):
            opt = torch.optim.Adam(model.parameters())
            for epoch in range(10):
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    opt.step()
                if main:
                    state = {"epoch": epoch, "model": model.state_dict()}
                print(epoch)
                if main:
                    torch.save(state, "last.pt")
        def search(model, loader, best=0):
            opt = torch.optim.Adam(model.parameters())
            for epoch in range(10):
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    opt.step()
                acc = score(model)
                if acc > best:
                    best, best_state = acc, model.state_dict()
                    keep(best_state)
    """,
    "a new model for each rate": """
        import torch
        from torch import nn
        best, best_model = 0, None
        for lr in (0.1, 0.01):
            model = nn.Linear(4, 3)
            opt = torch.optim.SGD(model.parameters(), lr=lr)
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            acc = score(model)
            if acc > best:
                best, best_model, best_weights = acc, model, model.state_dict()
        final = nn.Linear(4, 3)
        final.load_state_dict(best_weights)
    """,
    "a target that follows, and a checkpoint of each epoch": """
        import torch
        from torch import nn
        net, target = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.mse_loss(net(x), target(y).detach()).backward()
                opt.step()
            target.load_state_dict(net.state_dict())
            state = {"net": net.state_dict(), "opt": opt.state_dict()}
            torch.save(state, f"{epoch}.pt")
    """,
}
