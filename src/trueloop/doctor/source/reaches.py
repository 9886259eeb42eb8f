"""How far numbers surely reach: those of known data sets, those that were drawn, scaled or standardised in the text."""

from __future__ import annotations

from trueloop.doctor.source.data import loaded, stored
from trueloop.doctor.source.values import Object, Tensor, Unknown, Value, constant

MOST = 20  # steps back
KNOWN = {
    ("load_diabetes", "target"): (25.0, 346.0),
    ("fetch_california_housing", "target"): (0.15, 5.0),
}
"""The targets of data sets that everybody has."""
STANDARD = (-1.0, 1.0)
"""What has mean 0 and deviation 1 reaches so far, at least."""
_FORMS = ("getitem", "[]", "view_as", "reshape", "ravel", "squeeze", "astype", "unsqueeze", "T", "numpy")


def reaches(value: Value, depth: int = MOST) -> tuple[float, float] | None:
    """The least and the largest number that data surely reach; None if that is not known.

    Example:
        >>> reaches(Unknown("prices"))
    """
    value = stored(value)
    found = KNOWN.get(loaded(value))
    if found is not None or depth == 0:
        return found
    op, inputs = _operation(value)
    if op == "randint":
        numbers = [one for one in map(constant, inputs[:2]) if type(one) in (int, float)]
        return (float(numbers[0]), numbers[1] - 1.0) if len(numbers) == 2 else None
    if op in ("fit_transform", "transform"):
        scaler = value.of if isinstance(value, Unknown) else None
        return STANDARD if isinstance(scaler, Object) and scaler.name == "StandardScaler" else None
    if op in _FORMS and inputs:
        return reaches(inputs[0], depth - 1)
    if op == "div" and len(inputs) == 2 and _centred(inputs[0]) and _operation(inputs[1])[0] == "std":
        return STANDARD
    by = constant(inputs[1]) if len(inputs) == 2 else None
    if not isinstance(by, (int, float)) or by <= 0 or op not in ("add", "sub", "mul", "div"):
        return None
    inside = reaches(inputs[0], depth - 1)
    if inside is None:
        return None
    low, high = inside
    return {
        "add": (low + by, high + by),
        "sub": (low - by, high - by),
        "mul": (low * by, high * by),
        "div": (low / by, high / by),
    }[op]


def _centred(value: Value) -> bool:
    """``y - y.mean()``"""
    op, inputs = _operation(value)
    return op == "sub" and len(inputs) == 2 and _operation(inputs[1])[0] == "mean"


def _operation(value: Value) -> tuple[str, tuple[Value, ...]]:
    """What made a value, and out of what."""
    if isinstance(value, Tensor):
        first = value.inputs[0] if value.inputs else None
        is_batch = isinstance(first, Tensor) and first.op == "fetched"
        return ("", ()) if is_batch else (value.op, value.inputs)
    if not isinstance(value, Unknown):
        return "", ()
    if value.via == "call":
        return value.name, value.inputs if value.of is None or isinstance(value.of, Object) else (value.of,)
    return value.via, value.inputs or ((value.of,) if value.of is not None else ())
