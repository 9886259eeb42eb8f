"""Names and manifests: one way to write them, and all else is damage."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trueloop.checkpoint import layout
from trueloop.checkpoint.layout import Manifest, Written, folder_name, is_plain, parse, parse_folder_name, serialise
from trueloop.errors import CheckpointError, NewerFormatError

WRITTEN = Written(12, "ab" * 32)
MANIFEST = Manifest(
    *(120, 3, "2030-01-01T00:00:00+00:00", "every 20 steps", {"loss": 0.5, "accuracy": 0.9}),
    *("the sampler has no state_dict", {"state.json": WRITTEN, "model.safetensors": WRITTEN}),
)


@given(step=st.integers(0, 10**12), number=st.integers(1, 10**6))
def test_a_folder_s_name_says_step_and_number(step: int, number: int) -> None:
    assert parse_folder_name(folder_name(step, number)) == (step, number)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "step-1",
            "step-00000001-1",
            "step-00000001-0",
            "step-00000001-02",
            "step-000000001",
            "damaged-step-00000001",
        ),
        *(
            ".writing-step-00000001-7",
            "step-00000001.2",
            "step-00000001\n",
            "step-٠٠٠٠٠٠٠١",
            "step--0000001",
            "step-" + "9" * 5000,
        ),
    ],
)
def test_other_names_are_none(name: str) -> None:
    assert parse_folder_name(name) is None


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "a\\b", "", ".", "..", ".a", "a\0", "a\n", "é", "a" * 129])
def test_names_from_elsewhere_are_not_plain(name: str) -> None:
    assert not is_plain(name)


texts = st.text(st.characters(exclude_categories=()))


@given(
    st.builds(
        Manifest,
        *(st.integers(0), st.integers(0), texts, texts),
        st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False)),
        st.none() | texts,
        st.dictionaries(st.sampled_from(["state.json", "a", "b.c-d_e"]), st.just(WRITTEN)),
        texts,
    )
)
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    assert parse(serialise(manifest)) == manifest


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_null_and_comes_back_as_nan(value: float) -> None:
    data = serialise(replace(MANIFEST, metrics={"loss": value}))
    assert json.loads(data)["metrics"] == {"loss": None}
    assert math.isnan(parse(data).metrics["loss"])


@given(place=st.integers(0, 8 * len(serialise(MANIFEST)) - 1))
def test_any_flipped_bit_shows(place: int) -> None:
    data = bytearray(serialise(MANIFEST))
    data[place // 8] ^= 1 << place % 8
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        parse(bytes(data))


@given(st.integers(0, len(serialise(MANIFEST)) - 1))
def test_any_end_cut_off_shows(length: int) -> None:
    with pytest.raises(CheckpointError, match="not as it was written"):
        parse(serialise(MANIFEST)[:length])


@given(st.binary())
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 5000)
@example(b"NaN\n")
@example(serialise(MANIFEST) + b" ")
@example(serialise(MANIFEST).decode().encode("utf-16"))
def test_anything_else_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        parse(data)


def signed(**changed: object) -> bytes:
    """A manifest with other fields, and a hash that fits them."""
    fields = {**json.loads(serialise(MANIFEST)), **changed}
    del fields["sha256"]
    return layout._canonical({**fields, "sha256": layout._sha256(fields)})


def test_signed_is_as_serialise_does_it() -> None:
    assert signed() == serialise(MANIFEST)


def test_a_newer_format_is_refused_with_the_version_that_reads_it() -> None:
    says = r"^written by format 2 of trueloop 0\.9; this one \(0\.1\.0\) reads up to 1; install trueloop>=0\.9$"
    with pytest.raises(NewerFormatError, match=says):
        parse(signed(format=2, trueloop="0.9", something="new"))


@pytest.mark.parametrize(
    "changed",
    [
        *(
            {"format": 0},
            {"format": "1"},
            {"format": True},
            {"step": -1},
            {"step": "1"},
            {"step": True},
            {"epoch": None},
        ),
        *({"why": 1}, {"exact": 1}, {"metrics": []}, {"metrics": {"a": "b"}}, {"files": []}, {"files": {"a": 1}}),
        *(
            {"files": {"../a": {"size": 1, "sha256": "0" * 64}}},
            {"files": {"manifest.json": {"size": 1, "sha256": "0" * 64}}},
        ),
        *({"files": {"a": {"size": -1, "sha256": "0" * 64}}}, {"files": {"a": {"size": 1, "sha256": "x"}}}),
        *({"files": {"a": {"size": 1, "sha256": "0" * 64, "more": 1}}}, {"more": 1}),
    ],
    ids=str,
)
def test_a_manifest_of_other_fields_is_refused_though_its_hash_fits(changed: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="none of format 1"):
        parse(signed(**changed))
