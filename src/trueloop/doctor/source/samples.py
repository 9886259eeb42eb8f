"""Which dimension of a value holds the samples of a batch."""

from __future__ import annotations

from trueloop.doctor.source.values import Object, Tensor, Unknown, Value, constant

MOST = 40  # steps back


def samples_first(value: Value, depth: int = MOST) -> bool:
    """Whether a value's first dimension is surely the samples of a batch, whatever layers it has been through."""
    if isinstance(value, Unknown) and value.via == "[]":
        return _rows(value.attrs.get(("key",)))
    if depth == 0 or not isinstance(value, Tensor):
        return False
    first = value.inputs[0] if value.inputs else None
    if value.op == "fetched":
        return isinstance(first, Object) and is_stacked(first)
    if value.op == "getitem":
        batch = isinstance(first, Tensor) and first.op == "fetched"
        return samples_first(first, depth - 1) if batch and first is not None else _rows(value.options.get("key"))
    if value.op in ("view", "reshape"):
        return len(value.inputs) > 2 and samples_first(value.inputs[0], depth - 1)
    if value.op == "flatten" and value.layer is None:
        begin = constant(value.options.get("start_dim") or (value.inputs[1] if len(value.inputs) > 1 else None))
        return begin == 1 and samples_first(value.inputs[0], depth - 1)
    kind = value.layer.kind.rpartition(".")[2] if value.layer is not None else ""
    if first is None or not (kind.startswith(LAYERS) or value.op in EACH_BY_ITSELF):
        return False
    return samples_first(first, depth - 1)


LAYERS = ("Linear", "Conv", "BatchNorm", "LayerNorm", "Dropout", "MaxPool", "AvgPool", "Adaptive", "Flatten")
EACH_BY_ITSELF = frozenset(
    [
        *("to", "cuda", "cpu", "float", "double", "detach", "data", "numpy", "contiguous", "clone", "identity"),
        *("relu", "gelu", "tanh", "sigmoid", "silu", "leaky_relu", "elu", "softmax", "log_softmax", "log", "exp"),
        *("ReLU", "GELU", "Tanh", "SiLU", "LeakyReLU", "ELU", "max_pool2d", "avg_pool2d", "batch_norm", "clamp"),
        *("dropout", "layer_norm", "add", "sub", "mul", "div", "neg", "abs", "pow"),
    ]
)
"""Operations that keep the samples apart, and first."""


def is_stacked(loader: Object) -> bool:
    """Whether a loader's batches are torch's own: samples stacked along a new first dimension."""
    size = loader.option("batch_size", 1)
    own = any(one in loader.kwargs for one in ("collate_fn", "batch_sampler", "sampler", "**"))
    return loader.kind == "torch.utils.data.DataLoader" and not own and (size is None or constant(size, 2) is not None)


def _rows(key: object) -> bool:
    """Whether a key takes several rows."""
    return (isinstance(key, Tensor) and _indices(key)) or (isinstance(key, Unknown) and key.via == "slice")


def _indices(key: Tensor) -> bool:
    """Whether a key is several numbers that were drawn, or a piece of a permutation."""
    if key.op in ("randperm", "randint"):
        return True
    if key.op != "getitem" or not key.inputs:
        return False
    of, at = key.inputs[0], key.options.get("key")
    piece = isinstance(at, Unknown) and at.via == "slice"
    return isinstance(of, Tensor) and (of.op in ("split", "chunk") or (piece and _indices(of)))
