"""Nested Python values as JSON and tensors, and back: exact, typed, and no pickle.

What JSON has, stands as it is. All else is an object whose first key begins with ``$``: ``{"$tuple": [1, 2]}``,
``{"$tensor": "model/weight"}``. A user's dict that has such a key, or a key that is no string, becomes
``{"$dict": [[key, value], …]}``, so nothing can be mistaken for something else.
"""

from __future__ import annotations

import base64
import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from trueloop.checkpoint.tensors import DTYPES
from trueloop.errors import ArgumentError, CheckpointError
from trueloop.optim.parts import lies_in_parts, own_part

At: TypeAlias = tuple[str, ...]
"""Where a value stands: keys and indices from the outside in."""


def pack(tree: Any, copy: Callable[[str, Tensor], Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """A value as JSON and tensors; the JSON shares nothing with it.

    Known are None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, OrderedDict, Counter,
    deque, ``Path``, ``torch.Size``, ``torch.dtype``, ``torch.device``, tensors and parameters (dense, of a dtype in
    ``DTYPES`` or complex128; also in parts on several processes), numpy's arrays and scalars of numbers. Types and the
    order of keys are kept. A list that stands in two places becomes two lists; memory that two tensors share stays
    shared.

    Args:
        tree: the value.
        copy: called once for each piece of memory with a name and a tensor that shares it; gives the tensor to keep.

    Returns:
        JSON, and the tensors that it refers to by name: their path joined by ``/``, made unique.

    Raises:
        ArgumentError: something else is in it; or it contains itself.

    Example:
        >>> weight = torch.ones(2)
        >>> tree, tensors = pack({"step": 3, "betas": (0.9, 0.99), "w": weight}, lambda name, tensor: tensor.clone())
        >>> tree
        {'step': 3, 'betas': {'$tuple': [0.9, 0.99]}, 'w': {'$tensor': 'w'}}
        >>> unpack(tree, tensors)
        {'step': 3, 'betas': (0.9, 0.99), 'w': tensor([1., 1.])}
    """
    packing = _Packing(copy)
    return packing.value(tree, ()), packing.tensors


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that ``pack`` was given. Arrays share their memory with ``tensors``.

    Raises:
        CheckpointError: the JSON is not what ``pack`` gives, or a tensor is missing.

    Example:
        >>> unpack({"$set": [1]}, {})
        {1}
    """
    try:
        return _unpack(tree, tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"expected what pack() gives, got something else: {error!r}") from error


_DEEPEST = 100
_KNOWN = "numbers, strings, bytes, lists, tuples, sets, dicts, tensors and arrays of numbers"


class _Packing:
    def __init__(self, copy: Callable[[str, Tensor], Tensor]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._copy = copy
        # With the tensors themselves: memory that was freed in between would be given to the next one.
        self._names: dict[Hashable, tuple[str, Tensor]] = {}
        self._around: set[int] = set()
        self._keys = 0

    def value(self, value: Any, at: At) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:  # other readers of JSON end at 64 bits, and Python's reads no more than 4300 digits
            return value if -(2**63) <= value < 2**63 else {"$int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if kind is complex:
            return {"$complex": [self.value(value.real, at), self.value(value.imag, at)]}
        if kind is bytes:
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        if kind is torch.Size:
            return {"$size": [int(side) for side in value]}
        if kind is torch.dtype:
            return {"$dtype": str(value).removeprefix("torch.")}
        if kind is torch.device:
            return {"$device": str(value)}
        if isinstance(value, Path):
            return {"$path": str(value)}
        if isinstance(value, Tensor):
            return self._tensor(value, at)
        if isinstance(value, np.ndarray):
            return self._array(value, at)
        if isinstance(value, np.generic):
            return self._scalar(value, at)
        return self._container(value, at)

    def _container(self, value: Any, at: At) -> Any:
        if id(value) in self._around:
            _refuse(value, at, "contains itself", "JSON is a tree: leave the reference out")
        if len(at) >= _DEEPEST:
            _refuse(value, at, f"is nested more than {_DEEPEST} deep", "make it flatter")
        self._around.add(id(value))
        try:
            kind = type(value)
            if kind is list:
                return self._items(value, at)
            if kind is tuple:
                return {"$tuple": self._items(value, at)}
            if kind is deque:
                return {"$deque": self._items(value, at), "maxlen": value.maxlen}
            if kind is set or kind is frozenset:
                return {f"${kind.__name__}": [self._key(item, at) for item in value]}
            if kind is dict:
                return self._dict(value, at)
            if kind is OrderedDict or kind is Counter:
                return {f"${kind.__name__}": self._dict(value, at)}
        finally:
            self._around.discard(id(value))
        return _refuse(value, at, "cannot be saved", _advice(value))

    def _items(self, values: Any, at: At) -> list[Any]:
        return [self.value(item, (*at, str(index))) for index, item in enumerate(values)]

    def _dict(self, values: Mapping[Any, Any], at: At) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in values):
            return {key: self.value(item, (*at, key)) for key, item in values.items()}
        return {"$dict": [[self._key(key, at), self.value(item, (*at, _word(key)))] for key, item in values.items()]}

    def _key(self, key: Any, at: At) -> Any:
        self._keys += 1
        packed = self.value(key, (*at, _word(key)))
        self._keys -= 1
        return packed

    def _tensor(self, tensor: Tensor, at: At) -> dict[str, Any]:
        if type(tensor) not in (Tensor, nn.Parameter) and not lies_in_parts(tensor):
            _refuse(tensor, at, "cannot be saved", "save its plain values as a torch.Tensor, e.g. its full_tensor()")
        if tensor.is_quantized:
            _refuse(tensor, at, "is quantized", "save its int_repr(), scale and zero point")
        if tensor.layout is not torch.strided or tensor.is_nested:
            _refuse(tensor, at, f"is not dense but {tensor.layout}", "save its to_dense(), or its indices and values")
        if tensor.is_meta:
            _refuse(tensor, at, "is on the meta device and has no values", "move it by to_empty() and fill it")
        if tensor.dtype not in DTYPES and (tensor.dtype is not torch.complex128 or lies_in_parts(tensor)):
            _refuse(tensor, at, f"is of {tensor.dtype}, which safetensors cannot hold", "save it in another dtype")
        return self._named("$tensor", tensor, at)

    def _array(self, array: np.ndarray[Any, Any], at: At) -> dict[str, Any]:
        if type(array) is not np.ndarray:
            _refuse(array, at, "is of a class of its own", "save its np.asarray()")
        if not _is_of_numbers(array.dtype):
            _refuse(array, at, f"is of dtype {array.dtype}", "save it as an array of numbers of at most 64 bits")
        dtype = array.dtype.str
        torch_takes = array.flags.writeable and array.flags.aligned and array.dtype.isnative
        if not torch_takes or any(stride < 0 or stride % array.itemsize for stride in array.strides):
            array = array.astype(array.dtype.newbyteorder("="), order="C")
        return {**self._named("$array", torch.from_numpy(array), at), "dtype": dtype}

    def _scalar(self, scalar: np.generic, at: At) -> dict[str, Any]:
        if not _is_of_numbers(scalar.dtype):
            _refuse(scalar, at, f"is of dtype {scalar.dtype}", "save a number of at most 64 bits")
        return {"$scalar": scalar.tobytes().hex(), "dtype": scalar.dtype.str}

    def _named(self, tag: str, tensor: Tensor, at: At) -> dict[str, Any]:
        if self._keys:
            _refuse(tensor, at, "is a key, or in a set", "tensors are equal by identity, which is lost: use its name")
        tensor = tensor.detach()
        part = own_part(tensor)
        memory: Hashable = (
            *(part.device, part.data_ptr(), part.shape, part.stride(), part.dtype),
            *(part.is_conj(), part.is_neg()),
        )
        known = self._names.get(memory) if part.numel() else None
        if known is None:
            known = self._name(at), tensor
            self._names[memory] = known
            values = tensor if part is not tensor else _as_stored(tensor.resolve_conj().resolve_neg())
            self.tensors[known[0]] = self._copy(known[0], values)
        named = {tag: known[0]}
        return {**named, "complex": True} if tensor.dtype is torch.complex128 else named

    def _name(self, at: At) -> str:
        # UTF-8 has no lone surrogates; and __metadata__ is the format's own name
        name = "/".join(at).encode("utf-8", "backslashreplace").decode("utf-8") or "value"
        number, unique = 1, name
        while unique in self.tensors or unique == "__metadata__":
            number += 1
            unique = f"{name}~{number}"
        return unique


def _as_stored(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.dtype is torch.complex128 else tensor  # safetensors has complex64 only


def _is_of_numbers(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biufc" and dtype.itemsize <= (16 if dtype.kind == "c" else 8)  # no long doubles


def _word(key: Any) -> str:
    return key if type(key) is str else repr(key)[:40]


def _advice(value: Any) -> str:
    if isinstance(value, defaultdict):
        return (
            "its default factory is code, which a checkpoint never holds: save its dict(), and make it anew on loading"
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "a checkpoint imports no classes, so it would come back as a plain tuple: save its tuple() or _asdict()"
    if isinstance(value, torch.Generator):
        return "save its get_state()"
    if isinstance(value, np.random.Generator):
        return "save its bit_generator.state"
    if hasattr(value, "state_dict"):
        return "save its state_dict()"
    return f"save what it holds as {_KNOWN}"


def _refuse(value: Any, at: At, why: str, what_to_do: str) -> NoReturn:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise ArgumentError(f"{'/'.join(at) or 'the value'}: expected {_KNOWN}, got a {name} that {why}; {what_to_do}")


def _unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    def items(values: list[Any]) -> list[Any]:
        return [_unpack(value, tensors) for value in values]

    match tree:
        case None | bool() | int() | float() | str():
            return tree
        case list():
            return items(tree)
        case {"$tensor": str(name)}:
            return _from_stored(tensors[name], tree)
        case {"$array": str(name), "dtype": str(dtype)}:
            return _from_stored(tensors[name], tree).numpy().astype(dtype, copy=False)
        case {"$scalar": str(digits), "dtype": str(dtype)}:
            return np.frombuffer(bytes.fromhex(digits), dtype)[0]
        case {"$int": str(digits)}:
            return int(digits, 16)
        case {"$float": "nan" | "inf" | "-inf" as word}:
            return float(word)
        case {"$complex": [real, imaginary]}:
            return complex(_unpack(real, tensors), _unpack(imaginary, tensors))
        case {"$bytes": str(text)}:
            return base64.b64decode(text, validate=True)
        case {"$tuple": list(values)}:
            return tuple(items(values))
        case {"$set": list(values)}:
            return set(items(values))
        case {"$frozenset": list(values)}:
            return frozenset(items(values))
        case {"$deque": list(values), "maxlen": int() | None as longest}:
            return deque(items(values), longest)
        case {"$dict": list(pairs)}:
            return {_unpack(key, tensors): _unpack(value, tensors) for key, value in pairs}
        case {"$OrderedDict": values}:
            return OrderedDict(_unpack(values, tensors))
        case {"$Counter": values}:
            return Counter(_unpack(values, tensors))
        case {"$size": list(sides)}:
            return torch.Size(sides)
        case {"$dtype": str(name)}:
            return _dtype(name)
        case {"$device": str(name)}:
            return torch.device(name)
        case {"$path": str(name)}:
            return Path(name)
        case dict() if not any(key.startswith("$") for key in tree):
            return {key: _unpack(value, tensors) for key, value in tree.items()}
    raise ValueError(f"{str(tree)[:80]} stands for nothing")


def _from_stored(tensor: Tensor, reference: Mapping[str, Any]) -> Tensor:
    return torch.view_as_complex(tensor) if reference.get("complex") else tensor


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch.{name} is no dtype")
    return dtype
