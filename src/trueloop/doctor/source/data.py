"""Where numbers come from before a model sees them: out of which data set, and with how many dimensions."""

from __future__ import annotations

from trueloop.doctor.source.values import Constant, Items, Object, Tensor, Unknown, Value, constant

MOST = 40  # steps back
PREDICTIONS = "predictions"
"""The operation that made what a framework hands over as the outputs for all samples."""
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
        if inside is None and _operation(value)[0] == "part" and _is_rows(_key(value)):
            inside = _operation(value)[1][0]
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


def scaled(value: Value) -> tuple[Value, list[tuple[str, Value]]]:
    """The data that a model's input is a part of, and by what they were divided or multiplied on the way, last first.

    A part that was taken out, a batch, a split: all lead back to the whole. What is added does not count.
    """
    found: list[tuple[str, Value]] = []
    for _ in range(MOST):
        inside = _batch(value) or _split(value)
        op, inputs = _operation(value)
        if inside is None and inputs:
            if op in _SAME or op in ("part", "split", "chunk"):
                inside = inputs[0]
            elif op in ("fit_transform", "transform"):
                inside = inputs[0]
                found.append(("transform", Unknown()))
            elif op in _ELEMENTWISE and len(inputs) == 2:
                whole, by = inputs[::-1] if isinstance(inputs[0], Constant) else inputs
                inside = None if op == "mul" and not isinstance(by, Constant) else whole  # a mask, a share of a mixture
                if op in ("div", "mul"):
                    found.append((op, by))
        if inside is None:
            break
        value = inside
    return value, found


def _operation(value: Value) -> tuple[str, tuple[Value, ...]]:
    """What made a value, and out of what."""
    if isinstance(value, Tensor):
        first = value.inputs[0] if value.inputs else None
        batch = isinstance(first, Tensor) and first.op == "fetched"
        return "part" if value.op == "getitem" and not batch else value.op, value.inputs
    if isinstance(value, Unknown) and value.of is not None:
        if value.via == "[]" and value.of.__class__ is Unknown:
            return "part", (value.of,)
        if value.via == "call" and value.name in _SAME:
            return value.name, (value.of,)
    if isinstance(value, Unknown):
        return value.name if value.via == "call" else value.via, value.inputs
    return "", ()


def rank(value: Value, depth: int = MOST) -> int | None:
    """How many dimensions a batch, a tensor or an array has; None if that is not known."""
    if depth == 0:
        return None
    if isinstance(value, Constant):
        return 0 if isinstance(value.value, (int, float)) else None
    inside = _batch(value) or _split(value)
    if inside is not None:
        return rank(inside, depth - 1)
    name, part = loaded(value)
    if name in ROWS or name in _MADE:
        return {"data": 2, "target": 1, "images": 3}.get(part)
    op, inputs = _made_by(value)
    key = _key(value)
    if key is not None:
        return _rank_of_part(inputs[0], key, depth - 1)
    if op == "getitem" and isinstance(inputs[0], Tensor) and inputs[0].op in ("split", "chunk"):
        return rank(inputs[0].inputs[0], depth - 1)  # one of its pieces
    layer = value.layer if isinstance(value, Tensor) else None
    if layer is not None and layer.kind == "torch.nn.Flatten":
        return None if layer.args or layer.kwargs else 2
    if layer is not None and layer.kind.startswith(_KEEP_RANK) and inputs:
        return rank(inputs[0], depth - 1)
    if not inputs or layer is not None:
        return None
    if op in ("view", "reshape"):
        return len(inputs) - 1 if not isinstance(inputs[-1], Items) else None
    if op in ("flatten", "ravel"):
        return 1 if isinstance(value, Tensor) and len(inputs) == 1 and not value.options else None
    if op in _REDUCES:
        return _rank_reduced(value, inputs, depth - 1)
    return _rank_by(op, inputs, depth - 1)


_KEEP_RANK = tuple(
    f"torch.nn.{name}"
    for name in [
        *("Linear", "Conv", "BatchNorm", "LayerNorm", "Dropout", "MaxPool", "AvgPool"),
        *("ReLU", "LeakyReLU", "SiLU", "GELU", "ELU", "Tanh", "Sigmoid"),
    ]
)
_KEEPS_RANK = frozenset(
    (
        *("tensor", "as_tensor", "from_numpy", "Tensor", "FloatTensor", "float", "double", "to", "astype", "long"),
        *("relu", "tanh", "sigmoid", "exp", "log", "square", "abs", "copy", "contiguous", "clone", "detach"),
    )
)
_DRAWS = frozenset(["normal", "standard_normal", "uniform", "random", "integers"])
_COMPARES = frozenset(["compare", "gt", "lt", "ge", "le", "eq", "ne"])
_REDUCES = frozenset(["mean", "std", "min", "max", "sum"])


def _rank_reduced(value: Value, inputs: tuple[Value, ...], depth: int) -> int | None:
    """Of a mean and the like: over all, or over dimensions that are known and kept or not."""
    named = value.options if isinstance(value, Tensor) else {}
    if isinstance(value, Unknown) and (value.of is None or ("named",) in value.attrs):
        return None  # by which names its arguments were given is not known
    if constant(named.get("keepdim")) is True:
        return rank(inputs[0], depth)
    given = [*inputs[1:], *(one for name, one in named.items() if name in ("dim", "axis"))]
    if len(given) > 1 or len(named) + len(inputs) - 1 > len(given):
        return None
    if not given:
        return 0
    whole = rank(inputs[0], depth)
    taken = (
        len(given[0].items or ()) if isinstance(given[0], Items) else 1 if isinstance(constant(given[0]), int) else 0
    )
    return None if whole is None or not taken else whole - taken


def _rank_by(op: str, inputs: tuple[Value, ...], depth: int) -> int | None:
    """Of what an operation by this name makes of these."""
    first = inputs[0]
    if op in ("randn", "rand"):
        return len(inputs) if all(isinstance(constant(one), int) for one in inputs) else None
    if op in ("array", "asarray") and isinstance(first, Items):
        plain = first.items is not None and all(isinstance(one, Constant) for one in first.items)
        return 1 if plain and len(inputs) == 1 else None
    if op in ("randperm", "permutation"):
        counts = op == "randperm" or isinstance(first, Constant) or getattr(first, "name", "") == "len"
        return 1 if len(inputs) == 1 and counts else None
    if op in _DRAWS and len(inputs) == 1:
        if isinstance(first, Items):
            return len(first.items) if first.items else None
        return 1 if isinstance(constant(first), int) else None
    if op in _KEEPS_RANK:
        return rank(first, depth)
    if op == "unsqueeze":
        whole = rank(first, depth)
        return None if whole is None else whole + 1
    if op == "squeeze":
        return 1 if column(first, depth) and all(constant(one) in (1, -1) for one in inputs[1:]) else None
    if op == "matmul" and len(inputs) == 2:
        one, other = (rank(each, depth) for each in inputs)
        return None if one is None or other is None or other not in (1, 2) else one + other - 2
    if op in _ELEMENTWISE or op in _COMPARES:
        ranks = [rank(each, depth) for each in inputs]
        return None if None in ranks else max(each for each in ranks if each is not None)
    return None


def column(value: Value, depth: int = MOST) -> bool:
    """Whether something is surely a column, (N, 1)."""
    if depth == 0:
        return False
    inside = _batch(value) or _split(value)
    if inside is not None:
        return column(inside, depth - 1)
    op, inputs = _made_by(value)
    key = _key(value)
    if isinstance(key, Items) and key.items is not None and len(key.items) == 2:  # x[:, None]
        none = isinstance(key.items[1], Constant) and key.items[1].value is None
        return none and getattr(key.items[0], "via", "") == "slice" and rank(inputs[0], depth - 1) == 1
    if key is not None:
        return _is_rows(key) and column(inputs[0], depth - 1)
    layer = value.layer if isinstance(value, Tensor) else None
    if layer is not None:
        return gives_one(value) and rank(value, depth) == 2
    if op == "unsqueeze" and len(inputs) == 2:
        return constant(inputs[1]) in (1, -1) and rank(inputs[0], depth - 1) == 1
    if op in ("view", "reshape") and len(inputs) == 3:
        return [constant(one) for one in inputs[1:]] == [-1, 1]
    if op in _KEEPS_RANK and inputs:
        return column(inputs[0], depth - 1)
    if (op in _ELEMENTWISE or op in _COMPARES) and inputs:
        return column(inputs[0], depth - 1) and all(rank(one, depth - 1) == 0 for one in inputs[1:])
    return False


def _is_rows(key: Value | None) -> bool:
    """Whether what stands in the brackets takes rows out, and leaves all dimensions: a slice, or row numbers."""
    if isinstance(key, Unknown) and key.via == "slice":
        return True
    return _is_list(key) or (key is not None and rank(key) == 1)


def _is_list(key: Value | None) -> bool:
    """Row numbers in a list of Python's; a tuple has one for each dimension."""
    return isinstance(key, Items) and key.kind == "list" and not any(isinstance(one, Items) for one in key.all())


def _rank_of_part(of: Value, key: Value, depth: int) -> int | None:
    """``of[key]``: a number takes one dimension away, a row of numbers or a slice leaves it."""
    whole = rank(of, depth)
    if whole is None:
        return None
    if (isinstance(key, Unknown) and key.via == "slice") or _is_list(key):
        return whole
    if isinstance(key, Items) and key.items is not None:
        signs = [
            1 if constant(one, "") is None else 0 if getattr(one, "via", "") == "slice" else None for one in key.items
        ]
        signs = [-1 if isinstance(constant(one), int) else sign for one, sign in zip(key.items, signs, strict=True)]
        return None if None in signs else whole + sum(sign for sign in signs if sign is not None)
    if isinstance(key, Constant):
        return whole - 1 if isinstance(key.value, int) and not isinstance(key.value, bool) else None
    rows = rank(key, depth)
    return whole - 1 + rows if rows is not None else None


def part_of(value: Value) -> tuple[Value | None, Value | None]:
    """``of`` and ``key`` of ``of[key]``; twice None for all else."""
    if isinstance(value, Tensor) and value.op == "getitem":
        return value.inputs[0], value.options.get("key")
    if isinstance(value, Unknown) and value.via == "[]" and value.of is not None:
        key = value.attrs.get(("key",))
        return value.of, key if isinstance(key, Value) else None
    return None, None


def _key(value: Value) -> Value | None:
    """What stands in ``of[key]``."""
    return part_of(value)[1]


def gives_one(value: Value) -> bool:
    """Whether a value is what a layer with one output gives."""
    layer = value.layer if isinstance(value, Tensor) else None
    return layer is not None and layer.kind == "torch.nn.Linear" and constant(layer.option("out_features", 1)) == 1


def _made_by(value: Value) -> tuple[str, tuple[Value, ...]]:
    """The operation that made a value, and of what: a method's own thing first."""
    if isinstance(value, Tensor):
        return value.op, value.inputs
    if isinstance(value, Unknown) and value.via == "call":
        if value.name in _DRAWS:  # of a generator's, by its size alone
            return value.name, value.inputs[1:] if value.attrs.get(("named",)) == ("size",) else ()
        own = value.of is not None and value.name == "permutation"
        return value.name, value.inputs[1:] if own else value.inputs
    if isinstance(value, Unknown) and value.via == "[]" and value.of is not None:
        return "[]", (value.of,)
    return (value.via, value.inputs) if isinstance(value, Unknown) else ("", ())


ROWS = {
    "load_digits": 1797,
    "load_iris": 150,
    "load_wine": 178,
    "load_breast_cancer": 569,
    "load_diabetes": 442,
    "fetch_california_housing": 20640,
}
"""The data sets that come with scikit-learn, and their lengths."""
_MADE = ("make_friedman1", "make_friedman2", "make_friedman3", "make_moons", "make_circles", "make_blobs")
"""Those that it makes, of one target each."""


def rows(value: Value, depth: int = MOST) -> int | None:
    """How many samples an array has; None if that is not known."""
    if depth == 0:
        return None
    name, part = loaded(value) if isinstance(value, Unknown) else ("", "")
    if part in ("data", "target", "images") and name in ROWS:
        return ROWS[name]
    op, inputs = _made_by(value)
    key = _key(value)
    if _is_list(key):
        return None
    if isinstance(key, Items) and key.items:
        key = key.items[0]
    if isinstance(key, Unknown) and key.via == "slice":
        start, stop, step = (constant(one, "") for one in key.attrs.get("bounds", (Unknown(),) * 3))
        whole = rows(inputs[0], depth - 1)
        if whole is None or step is not None or not all(one is None or isinstance(one, int) for one in (start, stop)):
            return None
        return len(range(whole)[slice(start, stop)])
    if key is not None and rank(key, depth - 1) == 1:
        return rows(key, depth - 1)
    if op in ("randperm", "permutation") and len(inputs) == 1:
        return _counted(inputs[0], depth - 1)
    if op in ("randn", "rand", "zeros", "ones") and len(inputs) > 1:
        return _counted(inputs[0], depth - 1)
    if inputs and (op in _KEEPS_RANK or (op in ("div", "mul", "sub", "add") and isinstance(inputs[1], Constant))):
        return rows(inputs[0], depth - 1)
    return None


def _counted(value: Value, depth: int) -> int | None:
    """A number of rows: as it is written, or the length of an array."""
    if isinstance(value, Constant):
        return value.value if isinstance(value.value, int) else None
    is_length = isinstance(value, Unknown) and value.name == "len" and value.via == "call" and len(value.inputs) == 1
    return rows(value.inputs[0], depth) if is_length and isinstance(value, Unknown) else None


def batches(over: Value) -> int | None:
    """How many turns a loop over batches has: over a loader, also counted, or over pieces of shuffled rows."""
    each = over.attrs.get("each") if isinstance(over, Items) else None
    if isinstance(each, Items) and each.items is not None and len(each.items) == 2:  # enumerate
        fetched = each.items[1]
        of = fetched.inputs[0] if isinstance(fetched, Tensor) and fetched.op in ("fetched", "getitem") else None
        return None if of is None else batches(of)
    if isinstance(over, Tensor) and over.op == "split" and len(over.inputs) == 2:
        number, size, drops = rows(over.inputs[0]), constant(over.inputs[1]), False
    elif isinstance(over, Object) and over.kind == "torch.utils.data.DataLoader":
        if any(name in over.kwargs for name in ("sampler", "batch_sampler", "**")):
            return None
        number, size = length(over.option("dataset", 0)), constant(over.option("batch_size", 1), 1)
        drops = constant(over.option("drop_last"), False)
    else:
        return None
    if number is None or not isinstance(size, int) or size < 1 or not isinstance(drops, bool):
        return None
    return number // size if drops else -(-number // size)


def length(data: Value | None) -> int | None:
    """How many samples a data set has; None if that is not known."""
    if not isinstance(data, Object):
        return None
    if data.kind == "torch.utils.data.Subset":
        found = constant(data.option("length"))
        return found if isinstance(found, int) else None
    if data.cls == "torch.utils.data.TensorDataset" and data.args:
        return rows(data.args[0])
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


def shuffles(loader: Object) -> bool:
    """Whether a loader is said to shuffle."""
    return constant(loader.option("shuffle", 2)) is True
