from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trueloop.checkpoint.names import KIND, MISSING, SHAPE, SHOWN, TIED, UNEXPECTED, WRAPPERS, Misfit, fit, table

NAMES = st.lists(st.from_regex(r"[a-z]{1,4}(\.[a-z]{1,4}){0,3}", fullmatch=True), min_size=1, max_size=6, unique=True)


def whats(misfits: list[Misfit]) -> dict[str, str]:
    return {misfit.name: misfit.what for misfit in misfits}


@given(
    names=NAMES,
    theirs=st.lists(st.sampled_from(WRAPPERS), max_size=3),
    own=st.lists(st.sampled_from(WRAPPERS), max_size=2),
)
def test_wrappers_on_either_side_do_not_matter(names: list[str], theirs: list[str], own: list[str]) -> None:
    model = {"".join(own) + name: torch.zeros(1) for name in names}
    file = {"".join(theirs) + name: torch.full((1,), float(i)) for i, name in enumerate(names)}
    found = fit(model, file)
    assert found.misfits == []
    assert [tensor.item() for tensor in found.tensors.values()] == list(range(len(names)))
    assert list(found.tensors) == list(model)
    assert bool(found.lines) == (own != theirs)


def test_a_prefix_that_the_model_has_itself_stays() -> None:
    found = fit({"model.weight": torch.ones(1)}, {"model.weight": torch.ones(1)})
    assert found.misfits == []
    assert found.lines == []


def test_a_prefix_of_some_names_only_stays() -> None:
    found = fit({"a": torch.ones(1)}, {"module.a": torch.ones(1), "b": torch.ones(1)})
    assert whats(found.misfits) == {"a": MISSING, "module.a": UNEXPECTED, "b": UNEXPECTED}


def test_each_kind_of_misfit() -> None:
    model = {"same": torch.ones(2), "gone": torch.ones(3), "shape": torch.ones(2, 3), "count": torch.tensor(1)}
    file = {"same": torch.ones(2), "new": torch.ones(4), "shape": torch.ones(3, 2), "count": torch.tensor(1.5)}
    found = fit(model, file)
    assert list(found.tensors) == ["same"]
    assert found.misfits == [
        Misfit(MISSING, "gone", "(3,)"),
        Misfit(UNEXPECTED, "new", "(4,)"),
        Misfit(SHAPE, "shape", "(2, 3) in the model, (3, 2) in the file"),
        Misfit(KIND, "count", "int64 in the model, float32 in the file"),
    ]


@pytest.mark.parametrize(
    ("theirs", "own", "is_rounded"),
    [
        (torch.tensor([1.0, 0.1]), torch.bfloat16, True),
        (torch.tensor([1.0, 0.5, float("nan"), float("-inf")]), torch.bfloat16, False),  # goes in whole
        (torch.tensor([1e6]), torch.float16, True),
        (torch.tensor([0.1], dtype=torch.bfloat16), torch.float32, False),
        (torch.tensor([2**24 + 1]), torch.float32, True),
        (torch.tensor([300]), torch.uint8, True),
        (torch.tensor(0.1, dtype=torch.float64), torch.float32, True),
        (torch.tensor([]), torch.bfloat16, False),
        (torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn), torch.float32, False),
    ],
)
def test_rounding_is_told_where_numbers_change(theirs: Tensor, own: torch.dtype, is_rounded: bool) -> None:
    found = fit({"w": torch.zeros(theirs.shape, dtype=own)}, {"w": theirs})
    assert found.misfits == []
    assert bool(found.lines) == is_rounded
    if is_rounded:
        there, here = (str(dtype).removeprefix("torch.") for dtype in (theirs.dtype, own))
        assert found.lines == [f"rounded from {there} in the file to {here} in the model: w"]


# --- tied weights ---------------------------------------------------------------------------------------------------


def test_of_tied_weights_one_name_is_enough() -> None:
    weight = torch.ones(2, 2)
    model = {"embedding": weight, "head": weight, "other": torch.ones(2, 2)}
    for name in ("embedding", "head"):
        found = fit(model, {name: torch.zeros(2, 2), "other": torch.zeros(2, 2)})
        assert found.misfits == []
    assert whats(fit(model, {"other": torch.zeros(2, 2)}).misfits) == {"embedding": MISSING, "head": MISSING}


def test_a_view_is_covered_by_the_whole_and_not_the_other_way_round() -> None:
    whole = torch.ones(4, 2)
    model = {"whole": whole, "part": whole[1:3], "turned": whole.T}
    assert fit(model, {"whole": torch.zeros(4, 2)}).misfits == []
    assert whats(fit(model, {"part": torch.zeros(2, 2)}).misfits) == {"whole": MISSING, "turned": MISSING}


def test_a_view_that_another_covers_in_part_is_missing() -> None:
    whole = torch.ones(4)
    model = {"low": whole[:2], "high": whole[1:]}
    assert whats(fit(model, {"low": torch.zeros(2)}).misfits) == {"high": MISSING}
    assert whats(fit(model, {"high": torch.zeros(3)}).misfits) == {"low": MISSING}


def test_a_view_with_holes_covers_nothing() -> None:
    whole = torch.ones(6)
    model = {"even": whole[::2], "odd": whole[1:5:2]}
    assert whats(fit(model, {"even": torch.zeros(3)}).misfits) == {"odd": MISSING}


def test_tied_weights_that_differ_in_the_file() -> None:
    """torch loads both, and the last one wins without a word."""
    weight = torch.ones(2)
    model = {"embedding": weight, "head": weight}
    found = fit(model, {"embedding": torch.zeros(2), "head": torch.ones(2)})
    assert found.misfits == [Misfit(TIED, "head", "is embedding in the model")]
    assert found.tensors["embedding"].tolist() == [0, 0]
    assert fit(model, {"embedding": torch.zeros(2), "head": torch.zeros(2)}).misfits == []


# --- the table ------------------------------------------------------------------------------------------------------


def test_the_nearest_by_name_and_shape() -> None:
    model = {f"encoder.layers.{i}.{part}.weight": torch.ones(4, 4) for i in range(3) for part in ("query", "key")}
    file = {name.replace("encoder.layers", "bert.layer"): tensor for name, tensor in model.items()}
    lines = table(fit(model, file).misfits)
    for i in range(3):
        for part in ("query", "key"):
            line = next(line for line in lines if f"encoder.layers.{i}.{part}.weight  " in line)
            assert line.endswith(f"did you mean bert.layer.{i}.{part}.weight in the file?")


def test_a_name_of_its_own_shape_is_offered_whatever_it_is_called() -> None:
    model, file = {"a": torch.ones(7), "b": torch.ones(2)}, {"zzz": torch.ones(7), "b": torch.ones(2)}
    assert "  a  (7,)  did you mean zzz in the file?" in table(fit(model, file).misfits)


def test_nothing_is_offered_where_nothing_is_near() -> None:
    model, file = {"a": torch.ones(7)}, {"zzz": torch.ones(2)}
    assert table(fit(model, file).misfits) == [
        "in the model, not in the file: 1",
        "  a  (7,)",
        "in the file, not in the model: 1",
        "  zzz  (2,)",
    ]


def test_a_hint_holds_both_ways() -> None:
    model = {"0.bias": torch.ones(4)}
    file = {"1.bias": torch.ones(4), "1.running_mean": torch.ones(4), "1.running_var": torch.ones(4)}
    assert table(fit(model, file).misfits) == [
        "in the model, not in the file: 1",
        "  0.bias  (4,)  did you mean 1.bias in the file?",
        "in the file, not in the model: 3",
        "  1.bias          (4,)  did you mean 0.bias in the model?",
        "  1.running_mean  (4,)",
        "  1.running_var   (4,)",
    ]


def test_a_name_that_is_nearly_the_same_is_offered_also_if_its_shape_is_another() -> None:
    model, file = {"encoder.head.weight": torch.ones(7)}, {"encoder.heads.weight": torch.ones(3)}
    assert "  encoder.head.weight  (7,)  did you mean encoder.heads.weight in the file?" in table(
        fit(model, file).misfits
    )


def test_a_shape_that_many_have_says_nothing() -> None:
    model = {"a": torch.ones(2), "b": torch.ones(2)}
    file = {"yyy": torch.ones(2), "zzz": torch.ones(2)}
    assert not any("did you mean" in line for line in table(fit(model, file).misfits))


def test_a_long_list_is_cut_and_counted() -> None:
    model = {f"layer{i}.weight": torch.ones(i + 1) for i in range(1234)}
    lines = table(fit(model, {}).misfits)
    assert lines[0] == "in the model, not in the file: 1,234"
    assert len(lines) == SHOWN + 2
    assert lines[-1] == f"  … and {1234 - SHOWN:,} more"
