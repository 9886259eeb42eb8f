"""Where numbers come from before a model sees them: out of which data set, and with how many dimensions."""

from __future__ import annotations

from trueloop.doctor.source.values import Constant, Items, Object, Tensor, Unknown, Value, constant

MOST = 40  # steps back
_SAME = frozenset(
    (
        *("tensor", "as_tensor", "from_numpy", "Tensor", "FloatTensor", "LongTensor", "astype", "to", "cuda", "cpu"),
        *("float", "double", "long", "squeeze", "unsqueeze", "view", "reshape", "contiguous", "flatten", "clone"),
        "detach",
    )
)
_ELEMENTWISE = frozenset(["add", "sub", "mul", "div", "neg", "abs", "pow"])


def stored(value: Value) -> Value:
    """The numbers behind a batch: out of its loader, its data set, a split and what only changes their form."""
    for _ in range(MOST):
        inside = _batch(value) or _split(value)
        if inside is None and isinstance(value, Tensor) and value.op in _SAME and value.inputs:
            inside = value.inputs[0]
        if inside is None and isinstance(value, Unknown) and value.via == "call" and value.name in _SAME:
            inside = value.of
        if inside is None:
            break
        value = inside
    return value


def loaded(value: Value) -> tuple[str, str]:
    """The ``sklearn`` function that made numbers, and which part of its result they are; empty if none is known."""
    of = value.of if isinstance(value, Unknown) else None
    if not isinstance(of, Unknown) or not isinstance(value, Unknown) or of.via != "call":
        return "", ""
    return of.name, {"0": "data", "1": "target"}.get(value.name, value.name)


def rank(value: Value, depth: int = MOST) -> int | None:
    """How many dimensions a batch, a tensor or an array has; None if that is not known."""
    if depth == 0:
        return None
    if isinstance(value, Constant):
        return 0 if isinstance(value.value, (int, float)) else None
    inside = _batch(value) or _split(value)
    if inside is not None:
        return rank(inside, depth - 1)
    if isinstance(value, Unknown):
        name, part = loaded(value)
        if name in ("load_diabetes", "fetch_california_housing"):
            return {"data": 2, "target": 1}.get(part)
        plain = value.of is not None and value.via == "call" and len(value.inputs) == 1
        if plain and value.name in ("mean", "std", "min", "max"):
            return 0
        if value.via == "call" and value.name == "astype" and value.of is not None:
            return rank(value.of, depth - 1)
    if isinstance(value, Tensor) and value.op in ("tensor", "as_tensor", "from_numpy", "float", "double", "to"):
        return rank(value.inputs[0], depth - 1) if value.inputs else None
    if isinstance(value, Tensor) and value.op in ("randn", "rand") and value.inputs:
        known = all(isinstance(constant(one), int) for one in value.inputs)
        return len(value.inputs) if known else None
    if isinstance(value, Tensor) and value.layer is not None and value.layer.kind == "torch.nn.Flatten":
        return None if value.layer.args or value.layer.kwargs else 2
    if isinstance(value, Tensor) and value.op in ("view", "reshape") and len(value.inputs) > 2:
        return len(value.inputs) - 1
    if isinstance(value, Tensor) and value.layer is not None and value.layer.kind == "torch.nn.Linear":
        return rank(value.inputs[0], depth - 1) if value.inputs else None
    if isinstance(value, Tensor) and value.op in ("relu", "ReLU", "tanh", "sigmoid") and value.inputs:
        return rank(value.inputs[0], depth - 1)
    op, inputs = (
        (value.op, value.inputs)
        if isinstance(value, Tensor)
        else ((value.via, value.inputs) if isinstance(value, Unknown) else ("", ()))
    )
    if op in _ELEMENTWISE and inputs:
        ranks = [rank(one, depth - 1) for one in inputs]
        return None if None in ranks else max(one for one in ranks if one is not None)
    return None


def length(data: Value | None) -> int | None:
    """How many samples a data set has; None if that is not known."""
    if not isinstance(data, Object):
        return None
    if data.kind == "torch.utils.data.Subset":
        found = constant(data.option("length"))
        return found if isinstance(found, int) else None
    if data.cls == "torch.utils.data.TensorDataset" and data.args:
        first = data.args[0]
        made = isinstance(first, Tensor) and first.op in ("randn", "rand", "zeros", "ones") and len(first.inputs) > 1
        found = constant(first.inputs[0]) if isinstance(first, Tensor) and made else None
        return found if isinstance(found, int) else None
    return None


def _batch(value: Value) -> Value | None:
    """One part of a batch of a loader over a ``TensorDataset``: the whole of which it is a piece."""
    if not isinstance(value, Tensor) or value.op != "getitem" or not isinstance(value.inputs[0], Tensor):
        return None
    key, batch = constant(value.options.get("key")), value.inputs[0]
    if batch.op != "fetched" or not isinstance(key, int) or not batch.inputs:
        return None
    loader = batch.inputs[0]
    if not isinstance(loader, Object) or loader.kind != "torch.utils.data.DataLoader" or _shaped(loader):
        return None
    data = loader.option("dataset", 0)
    while isinstance(data, Object) and data.kind == "torch.utils.data.Subset":
        data = data.option("dataset", 0)
    if not isinstance(data, Object) or data.cls != "torch.utils.data.TensorDataset" or not 0 <= key < len(data.args):
        return None
    return data.args[key]


def _shaped(loader: Object) -> bool:
    """Whether something else than torch's own way makes the batches, or they are of one sample."""
    whole = loader.option("batch_size", 1)
    plain = whole is not None and constant(whole, 2) not in (None, 1)
    return not plain or any(one in loader.kwargs for one in ("collate_fn", "batch_sampler", "sampler"))


def _split(value: Value) -> Value | None:
    """What ``train_test_split`` took a part of."""
    of = value.of if isinstance(value, Unknown) and value.via == "[]" else None
    if not isinstance(value, Unknown) or not isinstance(of, Unknown) or of.name != "train_test_split":
        return None
    if not value.name.isdigit() or int(value.name) // 2 >= len(of.inputs):
        return None
    found = of.inputs[int(value.name) // 2]
    return None if isinstance(found, (Constant, Items)) else found
