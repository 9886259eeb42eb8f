"""Whatever is packed comes back: values, types, order, bits, and shared memory."""

from __future__ import annotations

import json
import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load
from torch import Tensor, nn

from trueloop.checkpoint.encode import pack, unpack
from trueloop.checkpoint.tensors import DTYPES, chunks
from trueloop.errors import ArgumentError, CheckpointError


def cloned(name: str, tensor: Tensor) -> Tensor:
    return tensor.clone()


def there_and_back(value: Any) -> Any:
    """Through JSON's text and safetensors' bytes, as on a disk."""
    tree, tensors = pack(value, cloned)
    stored = load(b"".join(chunks(tensors)))
    return unpack(json.loads(json.dumps(tree, allow_nan=False)), stored)


def same(first: Any, second: Any) -> bool:
    """Equal in type, order and bits."""
    if type(first) is not type(second):
        return False
    match first:
        case float():
            return bits(first) == bits(second)
        case complex():
            return bits(first.real) == bits(second.real) and bits(first.imag) == bits(second.imag)
        case np.generic() | np.ndarray():
            return bool((first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes()))
        case Tensor():
            flat = [one.resolve_conj().contiguous().reshape(-1).view(torch.uint8) for one in (first, second)]
            return first.dtype == second.dtype and first.shape == second.shape and torch.equal(flat[0], flat[1])
        case set() | frozenset():
            return len(first) == len(second) and all(any(same(one, other) for other in second) for one in first)
        case dict():
            return same(list(first.items()), list(second.items()))
        case deque():
            return first.maxlen == second.maxlen and same(list(first), list(second))
        case list() | tuple():
            return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def bits(number: float) -> bytes | str:
    return "nan" if math.isnan(number) else struct.pack("<d", number)


numpy_dtypes = st.sampled_from(
    [f"int{bits}" for bits in (8, 16, 32, 64)]
    + [f"uint{bits}" for bits in (8, 16, 32, 64)]
    + ["bool", "float16", "float32", "float64", "complex64", "complex128", ">i4", ">f8", ">c16"]
)
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
scalars: st.SearchStrategy[Any] = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.complex_numbers()),
    st.integers(-(2**70), 2**70),
    st.text(st.characters(exclude_categories=())),
    st.sampled_from(
        [torch.float32, torch.bfloat16, torch.device("cpu"), torch.device("cuda:1"), Path("a/b"), Path(".")]
    ),
    shapes.map(torch.Size),
    st.floats(width=32).map(np.float32),
    st.integers(0, 2**64 - 1).map(np.uint64),
    st.booleans().map(np.bool_),
    st.complex_numbers().map(np.complex128),
)
hashables = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=4
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype, shape = draw(st.sampled_from([*DTYPES, torch.complex128])), draw(shapes)
    seed = draw(st.integers(0, 99))
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randint(0, 256, (math.prod(shape) * dtype.itemsize,), generator=generator).to(torch.uint8)
    made = (flat % 2).bool() if dtype is torch.bool else flat.view(dtype)
    made = made.reshape(shape)
    return made.T if len(shape) == 2 else made


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    dtype, shape = np.dtype(draw(numpy_dtypes)), draw(shapes)
    made = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 100, shape).astype(dtype)
    if draw(st.booleans()):
        made = made.T
    if draw(st.booleans()) and made.ndim:
        made = made[::-1]
    made.flags.writeable = draw(st.booleans())
    return made


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    keys = st.text(max_size=3) | st.sampled_from(["$tensor", "$tuple", "$", "$dict"]) | hashables
    dicts = st.dictionaries(keys, inner, max_size=4)
    return st.one_of(
        *(lists, lists.map(tuple), dicts, dicts.map(OrderedDict)),
        st.dictionaries(st.text(), inner, max_size=4),
        st.builds(deque, lists, st.none() | st.integers(0, 5)),
        st.sets(hashables, max_size=4),
        st.dictionaries(hashables, st.integers(), max_size=3).map(Counter),
    )


@given(st.recursive(scalars | hashables | tensors() | arrays(), grown, max_leaves=12))
def test_what_is_packed_comes_back(value: Any) -> None:
    assert same(there_and_back(value), value)


@given(st.recursive(scalars | tensors() | arrays(), grown, max_leaves=8))
def test_packing_twice_gives_the_same(value: Any) -> None:
    assert json.dumps(pack(value, cloned)[0]) == json.dumps(pack(value, cloned)[0])


@pytest.mark.parametrize(
    "number", [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**5000, -(10**5000)], ids=int.bit_length
)
def test_large_numbers_come_back(number: int) -> None:
    assert there_and_back(number) == number


def test_the_states_of_random_generators_come_back() -> None:
    states = {
        "python": random.Random(1).getstate(),
        "numpy": np.random.RandomState(2).get_state(),
        "numpy's generator": np.random.default_rng(3).bit_generator.state,
        "numpy's philox": np.random.Generator(np.random.Philox(4)).bit_generator.state,
        "torch": torch.Generator().manual_seed(5).get_state(),
    }
    found = there_and_back(states)
    assert same(found, states)
    random.Random().setstate(found["python"])
    np.random.RandomState().set_state(found["numpy"])
    np.random.default_rng().bit_generator.state = found["numpy's generator"]
    torch.Generator().set_state(found["torch"])


def test_the_state_of_an_optimizer_comes_back() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    found = there_and_back(optimizer.state_dict())
    assert same(found, optimizer.state_dict())
    optimizer.load_state_dict(found)


def test_json_is_a_snapshot_that_shares_nothing() -> None:
    inner = [1, 2]
    value = {"list": inner, "deque": deque([inner]), "dict": {"a": inner}, 3: inner}
    tree, _ = pack(value, cloned)
    before = json.dumps(tree)
    inner.append(3)
    value["new"] = inner
    assert json.dumps(tree) == before


def test_names_are_paths_and_unique() -> None:
    a, b, c, d = (torch.tensor(float(n)) for n in range(4))
    _, found = pack({"x": {"y": a}, "x/y": b, "list": [c], 3: d}, cloned)
    assert {name: float(tensor) for name, tensor in found.items()} == {"x/y": 0, "x/y~2": 1, "list/0": 2, "3": 3}


@pytest.mark.parametrize("name", ["__metadata__", "\ud800", "a\0b", "é", "", "~2", "x" * 5000])
def test_odd_names_survive(name: str) -> None:
    assert same(there_and_back({name: torch.ones(2)}), {name: torch.ones(2)})


def test_the_same_memory_is_copied_once_and_stays_shared() -> None:
    weight, array = nn.Parameter(torch.ones(2, 3)), np.zeros(2)
    copied: list[str] = []

    def copy(name: str, tensor: Tensor) -> Tensor:
        copied.append(name)
        return tensor.clone()

    tied = {
        "in": weight,
        "out": weight.data,
        "part": weight[0],
        "t": weight.T,
        "array": array,
        "as tensor": torch.from_numpy(array),
    }
    tree, found = pack(tied, copy)
    assert copied == ["in", "part", "t", "array"] == list(found)
    loaded = unpack(tree, found)
    assert loaded["in"] is loaded["out"]
    loaded["array"][0] = 5
    assert loaded["as tensor"][0] == 5


def test_a_lazy_conjugate_has_the_same_memory_and_other_values() -> None:
    tensor = torch.tensor([1 + 2j])
    found = there_and_back({"a": tensor, "b": tensor.conj()})
    assert (found["a"][0].item(), found["b"][0].item()) == (1 + 2j, 1 - 2j)


def test_memory_that_is_freed_while_packing_is_not_mistaken_for_the_next() -> None:
    values = [np.full(1000, float(n), dtype=">f8") for n in range(50)]  # each is turned around in memory of its own
    assert same(there_and_back(values), values)


def test_empty_tensors_are_not_taken_for_one() -> None:
    _, found = pack([torch.ones(0), torch.ones(0)], cloned)
    assert len(found) == 2


def test_the_copy_may_be_a_view_of_what_is_there() -> None:
    tensor = torch.ones(3, requires_grad=True)
    _, found = pack({"a": tensor}, lambda name, tensor: tensor)
    assert found["a"].data_ptr() == tensor.data_ptr()
    assert not found["a"].requires_grad


Point = namedtuple("Point", "x y")


class Level(IntEnum):
    LOW = 1


class Text(str):
    pass


class Mine:
    pass


class Own(Tensor):
    pass


REFUSED = {
    "a defaultdict": (defaultdict(list), "collections.defaultdict.*default factory is code"),
    "a namedtuple": (Point(1, 2), r"Point that cannot be saved; .*plain tuple"),
    "an enum": (Level.LOW, "Level"),
    "a class of text": (Text("a"), "Text"),
    "an object": (Mine(), "Mine that cannot be saved; save what it holds"),
    "a lambda": (lambda: 1, "function"),
    "a class": (Mine, "type"),
    "a bytearray": (bytearray(b"a"), "bytearray"),
    "a module": (nn.Linear(1, 1), r"Linear that cannot be saved; save its state_dict\(\)"),
    "a generator": (torch.Generator(), r"save its get_state\(\)"),
    "numpy's generator": (np.random.default_rng(), "save its bit_generator.state"),
    "sparse": (torch.ones(2).to_sparse(), "is not dense but torch.sparse_coo"),
    "meta": (torch.ones(2, device="meta"), "is on the meta device"),
    "bits": (torch.empty(2, dtype=torch.bits8), "torch.bits8, which safetensors cannot hold"),
    "a tensor's class": (torch.ones(2).as_subclass(Own), "Own that cannot be saved"),
    "uninitialized": (nn.UninitializedParameter(), "UninitializedParameter"),
    "objects": (np.array([None]), "is of dtype object"),
    "texts": (np.array(["a"]), "is of dtype <U1"),
    "long doubles": (np.ones(1, np.longdouble), "at most 64 bits"),
    "a long double": (np.longdouble(1), "at most 64 bits"),
    "dates": (np.datetime64("2030-01-01"), "datetime64"),
    "records": (np.zeros(1, [("a", "i4")]), "is of dtype"),
    "a masked array": (np.ma.masked_array([1.0]), "a class of its own"),
    "a tensor as key": ({torch.ones(1): 1}, "equal by identity"),
    "a tensor in a set": ({(1, torch.ones(1))}, "equal by identity"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_saved_is_named_with_its_path(kind: str) -> None:
    value, message = REFUSED[kind]
    with pytest.raises(ArgumentError, match=rf"^keep/sampler/items/3(/|:).*{message}"):
        pack({"keep": {"sampler": {"items": [1, 2, 3, value]}}}, cloned)


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor")
def test_quantized_tensors_are_refused() -> None:
    quantized = torch._empty_affine_quantized([2], scale=1.0, zero_point=0, dtype=torch.quint8)
    with pytest.raises(ArgumentError, match=r"^a: .* is quantized; save its int_repr"):
        pack({"a": quantized}, cloned)


def test_the_whole_value_is_named_too() -> None:
    with pytest.raises(ArgumentError, match=r"^the value: expected numbers"):
        pack(Mine(), cloned)


def test_what_contains_itself_is_an_error_of_ours() -> None:
    endless: list[Any] = [1]
    endless.append({"again": endless})
    with pytest.raises(ArgumentError, match=r"^a/1/again: .* a list that contains itself"):
        pack({"a": endless}, cloned)


def test_what_is_nested_too_deep_is_an_error_of_ours() -> None:
    deep: Any = 0
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ArgumentError, match="nested more than 100 deep"):
        pack(deep, cloned)


def test_a_list_that_stands_twice_does_not_contain_itself() -> None:
    inner = [1]
    assert there_and_back([inner, inner]) == [[1], [1]]


@pytest.mark.parametrize(
    "tree",
    [
        *({"$unknown": 1}, {"$tensor": "missing"}, {"$tensor": 3}, {"$tuple": 3}, {"$int": "zz"}, {"$float": "1"}),
        *(
            {"$bytes": "!"},
            {"$dtype": "load"},
            {"$dtype": "nn"},
            {"$device": "nowhere"},
            {"$dict": [[1]]},
            {"$set": [[]]},
        ),
        *(
            {"$scalar": 1, "dtype": "<f8"},
            {"$scalar": "00", "dtype": "<f8"},
            {"$scalar": "", "dtype": "no"},
            {"$array": "a", "dtype": "no"},
            {"$Counter": 3},
            {"$complex": [1]},
            object(),
        ),
    ],
    ids=lambda tree: str(tree).partition(" at 0x")[0],  # an address is another one in each of xdist's workers
)
def test_json_that_is_not_ours_is_an_error_and_runs_nothing(tree: Any) -> None:
    with pytest.raises(CheckpointError, match="expected what pack"):
        unpack(tree, {"a": torch.ones(2)})
