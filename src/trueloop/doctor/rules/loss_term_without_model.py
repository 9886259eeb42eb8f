"""A term of the loss reaches no parameter: it is a constant in the sum, and trains nothing.

Sees: the loss is a sum, one side of which has no graph, at every one of 8 backwards or more; and a term without a graph
is part of it: a variable named in the sum whose value differs from step to step, or the result of one of torch's loss
functions (that it is in the sum, and not only reported, is found by fitting the loss to its terms over the steps); or
what the terms with a graph leave of the loss differs from step to step. 8 is a guess. Numbers that stay the same are
left out, and so is what is subtracted (an entropy of the targets). In the text: a term is the result of one of torch's
loss functions on data, or on what a frozen or detached model gave; or a penalty on ``p.data``.

Why it matters: the figure of the loss contains the term, its gradient does not. What the term was to teach is not
learnt: a penalty that does not penalise, a teacher that is not followed.

Usual causes: the term was detached (``.detach()``, ``.data``, ``.item()``, ``no_grad``); a gradient penalty without
``create_graph=True``; the wrong outputs are compared, such as the teacher's with the teacher's.

Fix: compute the term from the output of the model that trains, with gradients; or leave it out of the sum.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, Ended, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.graph import Graph, Node
from trueloop.doctor.keepers import variables_of
from trueloop.doctor.places import users_frame
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.library import LOSSES
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.results import CUTS
from trueloop.doctor.written import assigned, backwarded

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

TIMES = 8
LOOKED_AT = 60  # backwards
EXACT, MISSED = 1e-4, 1e-2  # of the loss's spread: left with the term in the fit, and without it
VARIES = 1e-4  # of the loss: what is left by rounding is a thousandth of that
VALUE = "trueloop.value"
SUMS = frozenset(("Add", "Sub", "Rsub", "Stack", "Sum", "Mean", "Mul", "Div", "Neg"))


class LossTermWithoutModel(Rule):
    """Knows it by the graph of the sum, its terms' variables, and a fit of the loss to its terms."""

    name = "loss-term-without-model"
    code = 120
    level = "warning"
    certainty = "measured"
    seen_by = ("run", "source")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._since: dict[tuple[Place | None, str, bool], float] = {}  # losses called since the last backward
        self._rows: dict[Place | None, list[tuple[float, dict[tuple[Place | None, str, bool], float]]]] = {}
        self._constants: dict[tuple[Place, str, Place], list[float]] = {}  # a term in the code -> its values
        self._rest: dict[Place | None, list[tuple[float, float]]] = {}  # what the terms with a graph leave of the loss
        self._sums: dict[Place | None, int] = {}  # line of a backward -> sums with a side without a graph
        self._backwards: dict[Place | None, int] = {}

    def loss_called(self, fact: LossCalled) -> None:
        output = fact.output
        if output is not None and output.dim() == 0 and readable(output):
            key, value = (fact.place, fact.kind, output.requires_grad), float(output.detach())
            self._since[key] = self._since.get(key, 0.0) + value
            if output.grad_fn is not None:
                metadata: Any = output.grad_fn.metadata
                metadata[VALUE] = value

    def backward_begun(self, fact: BackwardBegun) -> None:
        since, self._since = self._since, {}
        times = self._backwards.get(fact.place, 0)
        if times >= LOOKED_AT or fact.values is None or len(fact.values) != 1:
            return
        self._backwards[fact.place] = times + 1
        if not open_sums(fact.graph):
            return
        self._sums[fact.place] = self._sums.get(fact.place, 0) + 1
        self._rows.setdefault(fact.place, []).append((fact.values[0], since))
        if not fact.scaled and (known := known_part(Node(fact.graph.roots[0]))) is not None:
            self._rest.setdefault(fact.place, []).append((fact.values[0] - known, abs(fact.values[0])))
        if fact.place is not None:
            for place, term, value in _constant_terms(fact.place):
                self._constants.setdefault((place, term, fact.place), []).append(value)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        told: set[Place | None] = set()
        for (place, term, backward), seen in self._constants.items():
            always = len(seen) >= max(TIMES, self._backwards[backward])
            if always and _varies(seen) and place not in told:
                told.add(place)
                yield self.finding(
                    f"the term '{term}' of the loss has no graph: it is a constant in the sum and trains nothing",
                    f"at each of {len(seen)} backwards it had a value ({min(seen):.4g} to {max(seen):.4g}) and "
                    "no gradient",
                    place=place,
                )
        if told:
            return
        found = False
        for at, rows in self._rows.items():
            if len(rows) >= TIMES and len(rows) == self._backwards[at]:
                for (place, kind, _), figure in _in_the_sum(rows):
                    found = True
                    yield self.finding(
                        f"the result of {kind} on this line is part of the loss but has no graph: it trains nothing",
                        f"at each of {len(rows)} backwards its result needed no gradient",
                        figure,
                        place=place or at,
                        related=[(at, "the loss that is backpropagated")],
                    )

        for at, rest in self._rest.items():
            seen = [value for value, _ in rest]
            size = max(scale for _, scale in rest)
            if not found and len(rest) >= max(TIMES, self._backwards[at]) and max(seen) - min(seen) > VARIES * size:
                yield self.finding(
                    "a part of the loss has no graph: it is a constant in the sum and trains nothing",
                    f"at each of {len(rest)} backwards the terms with a graph left {min(seen):.4g} to "
                    f"{max(seen):.4g} of the loss to something without one",
                    place=assigned(at, backwarded(at)) or at,
                    related=[(at, "the loss that is backpropagated")],
                )

    def passed(self) -> str | None:
        looked_at = sum(self._backwards.values())
        return f"every term of {looked_at} losses has a graph" if looked_at and not self._sums else None


def open_sums(graph: Graph) -> bool:
    """Whether the loss is a sum of numbers one side of which needs no gradient.

    Example:
        >>> import torch
        >>> from trueloop.doctor.graph import graph_of
        >>> a = torch.ones(2, requires_grad=True).sum()
        >>> [open_sums(graph_of(loss)) for loss in (a + a * 2, 0.5 * (a + torch.ones(())))]
        [False, True]
    """
    rest = [Node(root) for root in graph.roots if root is not None]
    seen = 0
    while rest and seen < 100:
        node = rest.pop()
        seen += 1
        number = node.op in SUMS and node.shape in ((), (1,))  # what was summed up to one number has been summed
        if not number and node.op != "Stack":
            continue
        inputs = node.inputs
        if node.op in ("Add", "Sub", "Rsub", "Stack") and len(inputs) > 1 and None in inputs and any(inputs):
            return True
        rest.extend(below for below in inputs if below is not None)
    return False


def known_part(node: Node, depth: int = 12) -> float | None:
    """The value of those terms of a sum that have a graph; None if one of them is not one of torch's losses.

    Example:
        >>> import torch
        >>> loss = torch.ones(2, requires_grad=True).sum()
        >>> loss.grad_fn.metadata[VALUE] = 2.0
        >>> known_part(Node((0.5 * loss + torch.ones(())).grad_fn))
        1.0
    """
    value = node.raw.metadata.get(VALUE)
    if value is not None:
        return float(value)
    inputs = node.inputs
    if not depth or len(inputs) > 2 or not any(inputs):
        return None
    parts = [0.0 if below is None else known_part(below, depth - 1) for below in inputs]
    left, right = parts[0], parts[1] if len(parts) > 1 else 0.0
    if left is None or right is None:
        return None
    if node.op == "Add" and _plain(node.saved("alpha")):
        return left + right
    if node.op in ("Mul", "Div") and None in inputs:
        factor = node.saved("other" if inputs[0] is not None else "self")
        number = float(factor.detach()) if getattr(factor, "ndim", 1) == 0 else None
        if number is None or (node.op == "Div" and (inputs[0] is None or not number)):
            return None
        return (left + right) * number if node.op == "Mul" else left / number
    return None


def _plain(alpha: Any) -> bool:
    return alpha is None or alpha == 1


def _varies(values: list[float]) -> bool:
    return max(values) - min(values) > 1e-6 * max(abs(value) for value in values)


def _in_the_sum(rows: list[tuple[float, dict[Any, float]]]) -> Iterator[tuple[Any, str]]:
    """The losses without a graph of which the backpropagated one is made, by a fit over the steps."""
    import torch

    keys = [key for key in rows[0][1] if all(key in since for _, since in rows)]
    constant, learning = [key for key in keys if not key[2]], [key for key in keys if key[2]]
    if not constant or not learning or len(rows) < len(keys) + 4:
        return
    total = torch.tensor([[value] for value, _ in rows], dtype=torch.float64)
    columns = {key: torch.tensor([[since[key]] for _, since in rows], dtype=torch.float64) for key in keys}
    spread = float(total.std())

    def left(by: list[Any], intercept: bool) -> float:
        parts = [columns[key] for key in by] + ([torch.ones_like(total)] if intercept else [])
        matrix = torch.cat(parts, 1)
        return float(
            (total - matrix @ torch.linalg.lstsq(matrix, total, driver="gelsd").solution).square().mean().sqrt()
        )

    if not spread > 0 or not left(keys, False) <= EXACT * spread:
        return
    for key in constant:
        values = columns[key].flatten().tolist()
        if max(abs(value) for value in values) < 1e-6:
            yield key, f"its value is zero at each step (at most {max(values):.2g})"
        elif left([one for one in keys if one != key], True) > MISSED * spread:
            yield key, f"the loss is exactly a sum of its terms, this one among them ({values[0]:.4g} at first)"


def _constant_terms(backward: Place) -> list[tuple[Place, str, float]]:
    """Terms of the sum, in the code above a backward, whose variables hold numbers without a graph."""
    name = backwarded(backward)
    place = assigned(backward, name) if name else backward
    statement = _statements(backward.file, _length(backward.file)).get(place.line) if place else None
    frame = users_frame(2)
    if place is None or statement is None or frame is None or frame.f_code.co_filename != backward.file:
        return []
    if isinstance(statement, ast.Expr):  # (a + b).backward()
        call = statement.value
        value = call.func.value if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else None
    else:
        value = getattr(statement, "value", None)
    scales = isinstance(statement, ast.AugAssign) and not isinstance(statement.op, ast.Add)  # loss /= k
    if value is None or scales:
        return []
    variables = {**frame.f_globals, **variables_of(frame)}
    found = []
    for term in _terms(value):
        number = _constant(term, variables)
        if number is not None:
            found.append((place, ast.unparse(term), number))
    return found


def _length(file: str) -> int:
    return len(linecache.getlines(file))


@cache
def _statements(file: str, length: int) -> dict[int, ast.stmt]:
    """The simple statements of a file by their first line."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return {}
    return {
        node.lineno: node
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr))
    }


def _terms(value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Add, ast.Sub)):
        yield from _terms(value.left)
        if isinstance(value.op, ast.Add):  # what is subtracted may be meant to be a constant: an entropy of the targets
            yield from _terms(value.right)
    elif isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Mult, ast.Div)):
        sides = (value.left, value.right)
        inner = next(
            (side for side in sides if isinstance(side, ast.BinOp) and isinstance(side.op, (ast.Add, ast.Sub))), None
        )
        if inner is not None and any(isinstance(side, ast.Constant) for side in sides):
            yield from _terms(inner)
        else:
            yield value
    elif isinstance(value, ast.UnaryOp):
        yield from _terms(value.operand)
    elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "sum" and value.args:
        if isinstance(value.args[0], (ast.List, ast.Tuple)):
            for part in value.args[0].elts:
                yield from _terms(part)
    else:
        yield value


def _constant(term: ast.expr, variables: dict[str, Any]) -> float | None:
    """The number that a term without a graph holds; None if it has a graph, or cannot be told."""
    import torch

    number: float | None = None
    for node in ast.walk(term):
        if isinstance(node, ast.Call):
            plain = isinstance(node.func, ast.Attribute) and node.func.attr in ("item", "detach", "float")
            if not plain:
                return None
        elif isinstance(node, (ast.Subscript, ast.Lambda, ast.IfExp, ast.GeneratorExp, ast.ListComp)):
            return None
        elif isinstance(node, (ast.Name, ast.Attribute)) and not _inner(term, node):
            held = _value(node, variables)
            if isinstance(held, torch.Tensor):
                if held.requires_grad and not _cut(term, node):
                    return None
                if held.dim() == 0 and held.is_floating_point() and not held.is_meta:
                    number = float(held.detach()) * (1.0 if number is None else number)
                elif held.numel() != 1:
                    return None
            elif isinstance(held, float):
                number = held if number is None else number * held
            elif not isinstance(held, (int, bool)):
                return None
    return number


def _inner(term: ast.expr, node: ast.expr) -> bool:
    """Whether a name is only the beginning of ``self.weight``, or the name of a method."""
    return any(
        (isinstance(outer, ast.Attribute) and outer.value is node)
        or (isinstance(outer, ast.Call) and outer.func is node)
        for outer in ast.walk(term)
        if not (isinstance(outer, ast.Attribute) and outer.attr in ("item", "detach", "data", "float"))
    )


def _cut(term: ast.expr, node: ast.expr) -> bool:
    """Whether the graph is left behind in the term itself (``kd.detach()``, ``kd.item()``, ``kd.data``)."""
    return any(
        isinstance(outer, ast.Attribute) and outer.value is node and outer.attr in ("item", "detach", "data")
        for outer in ast.walk(term)
    )


def _value(node: ast.expr, variables: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return variables.get(node.id)
    if isinstance(node, ast.Attribute):
        if node.attr in ("item", "detach", "data", "float"):
            return 1
        return vars(owner).get(node.attr) if hasattr(owner := _value(node.value, variables), "__dict__") else None
    return None


def in_source(program: Program) -> Iterator[Checked]:
    """One term of a sum that is backpropagated is a loss without a graph, or a penalty on detached parameters."""
    told: set[int] = set()
    for run in program.runs:
        losses = {id(event.result): event for event in run.of(read.LossCalled)}
        for backward in run.of(read.Backward):
            terms = list(_summed(backward.loss))
            if backward.grad is False or all(_has_none(one) for one in terms):
                continue  # that is not one term's mistake
            for term in terms:
                called = losses.get(id(term))
                if isinstance(term, values.Tensor) and called is not None:
                    found = _has_none(term) and not _asks(term)
                    node, at, what = called.node, called.at, f"{called.kind} here"
                else:
                    found = _is_detached(term)
                    node, at, what = backward.node, backward.at, "a penalty on the parameters"
                if not found or id(node) in told:
                    continue
                told.add(id(node))
                finding = program.finding(
                    LossTermWithoutModel,
                    f"{what} reaches no parameter: it is a constant in the loss, and trains nothing",
                    "what it is made of has no graph: data, what was detached, or a model that is frozen",
                    at=program.line(node, at.unit),
                    related=[(backward, "the backward of the sum")] if node is not backward.node else [],
                    certainty="certain",
                )
                yield Checked(finding)


def _summed(value: values.Value, depth: int = 20) -> Iterator[values.Value]:
    """The terms of a sum, each without its factor; what is subtracted is left out."""
    op = value.op if isinstance(value, values.Tensor) else value.via if isinstance(value, values.Unknown) else ""
    inputs = value.inputs if isinstance(value, (values.Tensor, values.Unknown)) else ()
    if depth and op == "add" and len(inputs) == 2:
        for one in inputs:
            yield from _summed(one, depth - 1)
    elif depth and len(inputs) == 2 and (op == "sub" or (op in ("mul", "div") and _is_factor(inputs[1]))):
        yield from _summed(inputs[0], depth - 1)
    elif depth and op == "mul" and len(inputs) == 2 and _is_factor(inputs[0]):
        yield from _summed(inputs[1], depth - 1)
    elif isinstance(value, (values.Tensor, values.Unknown)):
        yield value


def _is_factor(value: values.Value) -> bool:
    """A number: a constant, or a setting whose value is not known."""
    plain = isinstance(value, values.Unknown) and value.via in ("", ".", "[]") and not value.inputs
    return plain or isinstance(value, values.Constant)


def _asks(term: values.Value) -> bool:
    """Whether something in it was told to need gradients."""
    return any(isinstance(one, values.Tensor) and one.attrs for one in ancestors(term))


def _is_detached(term: values.Value) -> bool:
    """Whether it is made of parameters, and each of them through ``data``, ``detach`` and the like."""
    cut = [one for one in ancestors(term) if _name(one) in CUTS and _of_parameters(one)]
    return bool(cut) and _has_none(term)


def _name(value: values.Value | None) -> str:
    return value.op if isinstance(value, values.Tensor) else value.via if isinstance(value, values.Unknown) else ""


def _of_parameters(cut: values.Value) -> bool:
    return any(_name(one) in ("parameters", "parameter") for one in ancestors(cut))


_PLAIN = frozenset(["abs", "sum", "pow", "square", "norm", "mean", "float", "add", "mul", "div", "neg", "sqrt", "max"])


def _has_none(value: values.Value, depth: int = 20, *, given: bool = False) -> bool:
    """Whether a value surely carries no graph, by all that went into it.

    Args:
        value: it.
        depth: how far back.
        given: it is what a model was given: what a loop goes through is then data.
    """
    if isinstance(value, values.Constant) or _name(value) in CUTS:
        return True
    if isinstance(value, values.Tensor) and value.graph is not None:
        return not value.graph
    if depth == 0:
        return False
    if isinstance(value, values.Tensor):  # a frozen model of batches whose loader is not known
        frozen = value.layer is None or value.layer.attrs.get("frozen") is True or value.layer.kind in LOSSES
        is_model = value.layer is not None and value.layer.kind not in LOSSES
        made_of = (*value.inputs, *value.options.values())
        return frozen and all(_has_none(one, depth - 1, given=given or is_model) for one in made_of)
    if isinstance(value, values.Items):
        return bool(value.all()) and all(_has_none(one, depth - 1, given=given) for one in value.all())
    if isinstance(value, values.Unknown):
        batch = value.of if value.via == "[]" else value if given else None
        word = value.name if value.via == "call" else value.via
        left = [one for one in value.inputs if not (word in ("mul", "div") and _is_factor(one))]
        known = word in _PLAIN and bool(left) and all(_has_none(one, depth - 1, given=given) for one in left)
        return known or (isinstance(batch, values.Unknown) and batch.via == "each" and _name(batch.of) != "parameters")
    return False


FIRES = {
    "the student is detached in the term": """
        teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD(student.parameters(), lr=0.05)
        for _ in range(20):
            x, y = torch.randn(16, 4), torch.randint(3, (16,))
            out = student(x)
            with torch.no_grad():
                soft = teacher(x).softmax(1)
            ce = F.cross_entropy(out, y)
            kd = F.kl_div(out.detach().log_softmax(1), soft, reduction="batchmean")
            loss = 0.3 * ce + 0.7 * kd
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a penalty of numbers": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(20):
            x = torch.randn(16, 4)
            penalty = sum(p.abs().sum().item() for p in model.parameters())
            loss = (model(x) - x[:, :1]).square().mean() + 0.01 * penalty
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a penalty on the data of the weights": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)

        def penalty(model):
            return sum(p.data.abs().sum() for p in model.parameters())

        for _ in range(20):
            x = torch.randn(16, 4)
            opt.zero_grad()
            loss = F.mse_loss(model(x), x[:, :1]) + 0.02 * penalty(model)
            loss.backward()
            opt.step()
    """,
    "the sum is made in a function": """
        teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
        teacher.requires_grad_(False)
        opt = torch.optim.Adam(student.parameters(), lr=0.05)

        def objective(x, y):
            guess, soft = student(x), teacher(x)
            return F.cross_entropy(guess, y) + 0.5 * F.mse_loss(soft, torch.zeros_like(soft))

        for _ in range(20):
            opt.zero_grad()
            loss = objective(torch.randn(16, 4), torch.randint(3, (16,)))
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "a figure that is only reported": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(20):
            x, y = torch.randn(16, 4), torch.randint(3, (16,))
            out = model(x)
            loss = 0.0
            loss = loss + F.cross_entropy(out, y)
            with torch.no_grad():
                shown = F.cross_entropy(out / 2, y)
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "flooding, and a small constant": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        flood, eps = 0.1, torch.tensor(1e-8)
        for _ in range(20):
            x, y = torch.randn(16, 4), torch.randint(3, (16,))
            ce = F.cross_entropy(model(x), y)
            loss = (ce - flood).abs() + flood + eps
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a scale that changes, and an entropy that is subtracted": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(20):
            x, soft = torch.randn(16, 4), torch.randn(16, 3).softmax(1)
            entropy = -(soft * soft.log()).sum(1).mean()
            loss = F.cross_entropy(model(x), soft) - entropy
            loss *= 1.0 - i / 40
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "weights of terms that change": """
        model = nn.Linear(4, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(20):
            x = torch.randn(16, 4)
            out = model(x)
            beta = torch.tensor(i / 20)
            first, second = F.mse_loss(out, x[:, :2]), out.abs().mean()
            loss = 0
            loss = loss + first + beta * second
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a term that joins later": """
        model = nn.Linear(4, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(30):
            x = torch.randn(16, 4)
            out = model(x)
            with torch.set_grad_enabled(i >= 12):
                second = F.l1_loss(model(x + 0.1), x[:, 2:])
            loss = F.mse_loss(out, x[:, :2]) + second
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

READ_FIRES = {
    "the teacher with the teacher": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        teacher.eval().requires_grad_(False)
        opt = torch.optim.Adam(student.parameters())
        for x, y in loader:
            out, soft = student(x), teacher(x)
            hard = F.cross_entropy(out, y)
            kd = F.kl_div(F.log_softmax(soft / 2, 1), F.softmax(soft / 2, 1), reduction="batchmean") * 4
            loss = 0.3 * hard + 0.7 * kd
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a penalty on data": """
        import torch
        from torch import nn
        def l1(model):
            return sum(p.data.abs().sum() for p in model.parameters())
        def train(model, loader, lam=0.01):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                opt.zero_grad()
                loss = nn.functional.mse_loss(model(x), y) + lam * l1(model)
                loss.backward()
                opt.step()
    """,
    "under no_grad, in a class": """
        import torch
        from torch import nn
        class Learner:
            def __init__(self, beta):
                self.net, self.beta = nn.Linear(4, 4), beta
                self.mse = nn.MSELoss()
                self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1)
            def consistency(self, x):
                with torch.no_grad():
                    return self.mse(self.net(x), self.net(x + 0.1))
            def step(self, x, y):
                loss = self.mse(self.net(x), y)
                loss = loss + self.beta * self.consistency(x)
                self.opt.zero_grad()
                loss.backward()
                self.opt.step()
        learner = Learner(0.5)
        for x, y in loader:
            learner.step(x, y)
    """,
}

READ_SILENT = {
    "all terms have a graph": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.Adam(student.parameters())
        for x, y in loader:
            out = student(x)
            with torch.no_grad():
                soft = teacher(x)
            kd = F.kl_div(F.log_softmax(out / 2, 1), F.softmax(soft / 2, 1), reduction="batchmean") * 4
            l2 = sum((p ** 2).sum() for p in student.parameters())
            loss = F.cross_entropy(out, y) + kd + 1e-4 * l2
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "reported, subtracted, or what the input's gradient makes": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        net, known = nn.Linear(4, 4), nn.Linear(4, 4)
        known.requires_grad_(False)
        opt = torch.optim.Adam(net.parameters())
        for x, y in loader:
            entropy = F.mse_loss(known(x), y)
            loss = F.mse_loss(net(x), known(x)) - entropy
            shown = loss.item() + entropy.item()
            point = x.clone()
            point.requires_grad_(True)
            loss = loss + F.mse_loss(known(point), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a sum that begins with a number, and terms of unknown functions": """
        import torch
        from torch import nn
        from losses import perceptual
        def train(net, loader, old):
            opt = torch.optim.Adam(net.parameters())
            for x, y in loader:
                total = torch.tensor(0.0)
                for part in x.split(4):
                    total = total + nn.functional.mse_loss(net(part), part)
                drift = sum(((p - q.data) ** 2).sum() for p, q in zip(net.parameters(), old))
                total = total + perceptual(net(x), y) + drift
                opt.zero_grad()
                total.backward()
                opt.step()
    """,
}
