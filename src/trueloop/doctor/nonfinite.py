"""Where NaN and Inf come from: told from what the operations of a graph have kept, without running anything again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from trueloop.doctor.findings import Place
from trueloop.doctor.graph import SHAPE_ONLY, Graph, Node
from trueloop.doctor.parts import own_part

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from trueloop.doctor.trace import Trace

LARGEST = 10_000
"""Larger graphs are not read."""
OPERANDS: dict[str, tuple[str | None, ...]] = {
    "Addmm": (None, "mat1", "mat2"),
    "Mm": ("self", "mat2"),
    "Bmm": ("self", "mat2"),
    "Convolution": ("input", "weight"),
    "MseLoss": ("self", "target"),
    "L1Loss": ("self", "target"),
    "SmoothL1Loss": ("self", "target"),
    "HuberLoss": ("self", "target"),
    "BinaryCrossEntropy": ("self", "target"),
    "BinaryCrossEntropyWithLogits": ("self", "target"),
    "NativeBatchNorm": ("input", "weight"),
    "NativeLayerNorm": ("input", "weight"),
}
"""Under which names an operation keeps its inputs; others keep ``self`` and ``other``, if any."""
RISKY = frozenset(
    (
        *("Log", "Log2", "Log10", "Log1P", "Sqrt", "Rsqrt", "Reciprocal", "Div", "Pow", "Exp", "Expm1", "Std"),
        *("Acos", "Asin", "Atanh", "Acosh"),
    )
)
"""Operations that make non-finite values, or slopes, of finite ones."""
NO_GRAPH = "a value computed without a graph"
"""What is known of an operand that no operation in the graph has made: data, or something made of data alone."""
_KEPT = "the kept batch"


class Break(NamedTuple):
    """An operation that gave, or will give, something non-finite."""

    op: str
    what: str
    """In words: ``the logarithm of zero``."""
    place: Place | None
    module: str | None
    rows: list[int]
    """Of its first dimension; empty where they cannot be told."""
    size: int = 0
    """How many rows there are."""


class Kept(NamedTuple):
    """A tensor that is saved, or will be if the training breaks."""

    name: str
    """``input``, ``target`` or ``batch``; a second one is ``input1``."""
    about: str
    """What it is, in words."""
    tensor: Tensor


def finite(tensor: Tensor) -> bool:
    """Whether all values are finite; True for what is not of floats.

    Example:
        >>> import torch
        >>> [finite(torch.tensor(values)) for values in ([1.0, 2.0], [1.0, float("nan")], [1e38] * 9)]
        [True, False, True]
    """
    import torch

    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta or tensor.layout != torch.strided:
        return True
    if tensor.numel() == 0 or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return True
    values = own_part(tensor)
    # A sum is one pass without a copy. It may overflow though all is finite, so it cannot accuse.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def is_mask(tensor: Tensor) -> bool:
    """Whether minus infinity stands here by right: beside one other value only, or in a square of scores."""
    values = tensor.detach()
    if bool(values.isnan().any()) or bool(values.isposinf().any()):
        return False
    others = values[values.isfinite()]
    square = values.dim() > 1 and values.shape[-1] == values.shape[-2]
    return square or others.numel() == 0 or bool((others == others[0]).all())


def rows_of(tensor: Tensor) -> list[int]:
    """The samples (rows of the first dimension) that hold something non-finite; none where all of many do."""
    if not tensor.dim() or not len(tensor):
        return []
    bad = ~tensor.detach().reshape(len(tensor), -1).isfinite().all(1)
    return [int(row) for row in bad.nonzero().flatten().tolist()]


def columns_of(tensor: Tensor) -> list[int]:
    """The features of a table that hold something non-finite, where not all do.

    Example:
        >>> import torch
        >>> columns_of(torch.tensor([[1.0, float("inf")], [2.0, 3.0]]))
        [1]
    """
    if tensor.dim() != 2:
        return []
    bad = ~tensor.detach().isfinite().all(0)
    found = [int(column) for column in bad.nonzero().flatten().tolist()]
    return found if len(found) < tensor.shape[1] else []


def first_break(graph: Graph, place_of: Callable[[Node], Place | None] = lambda node: node.place) -> Break | None:
    """The operation nearest to the leaves that gave something non-finite, when the loss already is.

    Args:
        graph: the loss's.
        place_of: tells an operation's line (``learnt.Learnt`` knows those of later graphs).

    Returns:
        None where it cannot be told. Its ``what`` is ``NO_GRAPH`` for an operation that was given something broken
        that no other one in the graph has made.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 0.0], requires_grad=True)
        >>> first_break(Graph(((x * 2).log().sum().grad_fn,)))[:2]
        ('Log', 'the logarithm of zero or less')
    """
    import torch

    if len(graph.nodes) > LARGEST:
        return None
    order = leaves_first(graph)
    made = _known_outputs(order)
    for node in order:
        danger = _danger(node, forward=True)
        if danger is not None:
            return danger._replace(module=module_of(graph, node), place=place_of(node))
        for name, below in zip(_names(node), node.inputs, strict=False):
            given = node.saved(name) if name and below is None else None
            if isinstance(given, torch.Tensor) and not finite(given) and not is_mask(given):
                return Break(node.op, NO_GRAPH, place_of(node), module_of(graph, node), rows_of(given), _rows(given))
        result = made.get(node.raw)
        if result is not None and not finite(result) and not is_mask(result):
            maker = node
            while maker.op in SHAPE_ONLY or maker.op in ("Relu", "Add", "Threshold"):
                inner = [one for one in maker.inputs if one is not None and one.parameter is None]
                if not inner or any(made.get(one.raw) is not None for one in inner):
                    break
                maker = inner[0]
            kind = "an overflow" if not bool(result.isnan().any()) else "NaN"
            if maker.op == "Softmax" and kind == "NaN":
                kind = "a softmax of minus infinity alone (all of a row is masked)"
            return Break(
                maker.op,
                kind,
                place_of(maker) or place_of(node),
                module_of(graph, maker),
                rows_of(result),
                _rows(result),
            )
    # What sums keep is not known: where all that is known is finite, it is one of them.
    total = next((node for node in order if node.op in ("Sum", "Mean")), None)
    if total is None:
        return None
    return Break(total.op, "a sum that overflows", place_of(total), module_of(graph, total), [])


def suspects(graph: Graph, place_of: Callable[[Node], Place | None] = lambda node: node.place) -> list[Break]:
    """The operations whose slope is not finite where they stand, though what they gave is: backward will break there.

    Example:
        >>> import torch
        >>> x = torch.zeros(2, requires_grad=True)
        >>> [found.what for found in suspects(Graph(((x * 2).sqrt().sum().grad_fn,)))]
        ['a square root at zero, where its slope is infinite']
    """
    found = []
    for node in graph.nodes:
        danger = _danger(node, forward=False) if node.op in RISKY else None
        if danger is not None:
            found.append(danger._replace(module=module_of(graph, node), place=place_of(node)))
    return found


def module_of(graph: Graph, node: Node) -> str | None:
    """The innermost module whose forward made this, by the names that were left in the graph (``activations``)."""
    own = node.raw.metadata.get("trueloop module")
    if own is not None:
        return str(own)
    takers: dict[Any, list[Any]] = {}
    for one in graph.nodes:
        for below, _ in one.raw.next_functions:
            takers.setdefault(below, []).append(one.raw)
    rest, known = [node.raw], {node.raw}
    for raw in rest:  # towards the loss; the list grows while it is read
        name = raw.metadata.get("trueloop module")
        if name is not None:
            begins = raw.metadata.get(
                "trueloop inputs", -1
            )  # operations are numbered in the order in which they are made
            return str(name) if node.raw._sequence_nr() > begins else None
        for taker in takers.get(raw, []):
            if taker not in known:
                known.add(taker)
                rest.append(taker)
    return None


def keep(trace: Trace, tensors: Iterable[Kept]) -> Path | None:
    """Saves a batch beside the run, once: what is kept by one finding is named by the next.

    Returns:
        The file; None where nothing is to be saved, or it cannot be.
    """
    from safetensors.torch import save_file

    if _KEPT in trace.answers or trace.save_to is None:
        return trace.answers.get(_KEPT)
    named: dict[str, Tensor] = {}
    about = {"trueloop": f"a batch that broke the training, at step {trace.step}; each tensor is told here"}
    for one in tensors:
        name = one.name + str(next(n for n in range(len(named) + 1) if f"{one.name}{n or ''}" not in named) or "")
        named[name] = one.tensor.detach().to("cpu", copy=True).contiguous()
        about[name] = one.about
    path = trace.save_to / f"trueloop-nonfinite-step-{trace.step}.safetensors"
    if not named:
        return None
    try:
        save_file(named, path, metadata=about)
    except Exception:  # a full disk, a dtype that the format does not know: the finding is told all the same
        return None
    trace.answers[_KEPT] = path
    return path


def with_batch(trace: Trace, tensors: Iterable[Kept]) -> list[Kept]:
    """These tensors, each once, and what else the loader gave last."""
    last = [] if trace.last_batch is None else trace.last_batch.tensors
    batch = [Kept("batch", f"tensor {n} of what the loader gave last", tensor) for n, tensor in enumerate(last)]
    known: dict[int, Kept] = {}
    for one in (*tensors, *batch):
        known.setdefault(id(one.tensor), one)
    return list(known.values())


def leaves_first(graph: Graph) -> list[Node]:
    """The nodes, each after what it was made from."""
    order: list[Node] = []
    known: set[Any] = set()
    rest: list[tuple[Any, bool]] = [(root, False) for root in graph.roots if root is not None]
    while rest:
        raw, ready = rest.pop()
        if ready:
            order.append(Node(raw))
        elif raw not in known:
            known.add(raw)
            rest.append((raw, True))
            rest.extend((below, False) for below, _ in raw.next_functions if below is not None and below not in known)
    return order


def _known_outputs(nodes: list[Node]) -> dict[Any, Tensor]:
    """What operations made, where they kept it themselves or those that took it did."""
    import torch

    made: dict[Any, Tensor] = {}
    for node in nodes:
        result = node.saved("result")
        if isinstance(result, torch.Tensor):
            made[node.raw] = result
        for name, below in zip(_names(node), node.inputs, strict=False):
            given = node.saved(name) if name and below is not None else None
            if below is not None and isinstance(given, torch.Tensor):
                made.setdefault(below.raw, given)
    return made


def _names(node: Node) -> tuple[str | None, ...]:
    return OPERANDS.get(node.op, ("self", "other"))


def _danger(node: Node, forward: bool) -> Break | None:
    """What is wrong with the operands of a risky operation, if something is."""
    import torch

    op = node.op
    if op not in RISKY and not (forward and op in ("Mul", "MseLoss")):
        return None
    own, other, result = node.saved("self"), node.saved("other"), node.saved("result")
    bad, what = None, ""
    if op.startswith("Log") and isinstance(own, torch.Tensor):
        bad, what = (own <= (-1 if op == "Log1P" else 0)), "the logarithm of zero or less"
    elif op == "Div" and isinstance(other, torch.Tensor):
        bad, what = (other == 0), "a division by zero"
    elif op in ("Sqrt", "Std") and isinstance(result, torch.Tensor):
        name = "a square root" if op == "Sqrt" else "a standard deviation"
        if forward:
            bad, what = result.isnan(), f"{name} of what is below zero" if op == "Sqrt" else f"{name} of one value"
        else:
            bad, what = (result == 0), f"{name} at zero, where its slope is infinite"
    elif op in ("Rsqrt", "Reciprocal", "Exp", "Expm1") and isinstance(result, torch.Tensor):
        bad, what = (
            ~result.isfinite(),
            "an exponential that overflows" if op.startswith("Exp") else "a division by zero",
        )
    elif op == "Pow" and isinstance(own, torch.Tensor):
        exponent = node.saved("exponent")
        if isinstance(exponent, (int, float)):
            if exponent < (0 if forward else 1) and exponent != 0:
                bad, what = (
                    (own == 0),
                    f"zero to the power {exponent:g}" + ("" if forward else ", where its slope is infinite"),
                )
            elif forward and exponent != int(exponent) and bool((own < 0).any()):
                bad, what = (own < 0), f"a negative number to the power {exponent:g}"
            elif forward:
                bad, what = ~own.pow(exponent).isfinite(), "a power that overflows"
    elif op == "Mul" and isinstance(own, torch.Tensor) and isinstance(other, torch.Tensor):
        bad, what = ~(own * other).isfinite(), "a product that overflows"
        other_is_finite = finite(other) or is_mask(other)
        bad = bad if other_is_finite else None
    elif op == "MseLoss" and isinstance(own, torch.Tensor) and isinstance(target := node.saved("target"), torch.Tensor):
        bad, what = ~(own - target).square().isfinite(), "a square that overflows"
        bad = bad if finite(target) else None
    elif op in ("Acos", "Asin", "Atanh", "Acosh") and isinstance(own, torch.Tensor):
        edge = own.abs() if op != "Acosh" else 2 - own
        bad, what = (edge > 1 if forward and op in ("Acos", "Asin") else edge >= 1), f"{op.lower()} at its edge"
    if bad is None or not bool(bad.any()):
        return None
    if (
        forward
        and op in ("Log", "Log2", "Log10", "Log1P", "Div", "Pow", "Mul", "MseLoss")
        and isinstance(own, torch.Tensor)
        and not finite(own)
    ):
        return None  # it was broken before
    rows = [int(i) for i in bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()] if bad.dim() else []
    return Break(op, what, None, None, rows, _rows(bad))


def _rows(tensor: Tensor) -> int:
    return len(tensor) if tensor.dim() else 0
