"""The language model: its data, its loss, what it writes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import trueloop as tl
from trueloop.recipes.char_lm import Gpt, WritesAtEnd, bits_per_character, char_lm, next_character, windows

POEM = "the quick brown fox jumps over the lazy dog\n" * 60


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_text(POEM, encoding="utf-8")
    return path


def test_it_learns_a_text_and_writes_of_it(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = char_lm(text, steps=60, context=16, width=32, layers=1, heads=2, lr=1e-2, batch_size=16, sample=40)
    result = recipe.fit(progress=False)
    assert result.metrics["bits_per_character"] < 2.5 < math.log2(len(set(POEM)))
    assert result.metrics["bits_per_character"] == pytest.approx(result.metrics["loss"] / math.log(2), rel=1e-4)
    written = capsys.readouterr().out
    assert "the model writes:" in written
    assert len(written) >= 40


def test_validation_predicts_each_character_of_the_held_out_tenth_once(text: Path) -> None:
    recipe = char_lm(text, context=16)
    targets = recipe.val[:, 1:].flatten()
    held_out = POEM[-(len(POEM) // 10) :]
    alphabet = sorted(set(POEM))
    assert "".join(alphabet[token] for token in targets) == held_out[1 : 1 + len(targets)]
    assert len(held_out) - 1 - len(targets) < 16  # what is left makes no whole piece


def test_training_pieces_do_not_reach_into_the_held_out_tenth(text: Path) -> None:
    recipe = char_lm(text, context=16)
    tokens = len(POEM) - len(POEM) // 10
    assert recipe.train.shape == (tokens - 16, 17)
    assert recipe.train.untyped_storage().nbytes() <= 8 * len(POEM)  # a view


def test_windows_overlap_as_asked() -> None:
    assert windows(torch.arange(5), context=2, every=1).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_the_model_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    model = Gpt(characters=7, context=8, width=16, layers=2, heads=2)
    tokens = torch.randint(0, 7, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (tokens[0, 5] + 1) % 7
    before, after = model(tokens), model(changed)
    assert torch.equal(before[0, :5], after[0, :5])
    assert not torch.allclose(before[0, 5:], after[0, 5:])


def test_the_loss_is_the_mean_over_characters() -> None:
    model = Gpt(characters=7, context=4, width=8, layers=1, heads=1)
    pieces = torch.randint(0, 7, (3, 5))
    with torch.no_grad():
        computed = next_character(model, pieces)
    by_hand = functional.cross_entropy(model(pieces[:, :-1]).transpose(1, 2), pieces[:, 1:])
    assert computed["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    expected = by_hand.item() / math.log(2)
    assert bits_per_character(computed["output"], computed["target"]) == pytest.approx(expected, rel=1e-5)


def test_writing_draws_from_no_rng_but_its_own(text: Path) -> None:
    torch.manual_seed(0)
    model = Gpt(characters=3, context=4, width=8, layers=1, heads=1)
    before = torch.get_rng_state()
    first, again = (WritesAtEnd(model, ["a", "b", "\n"], 50, seed=1).write() for _ in range(2))
    assert first == again
    assert len(first) == 50
    assert torch.equal(before, torch.get_rng_state())


def test_no_sample_on_request(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    char_lm(text, steps=1, context=16, width=8, layers=1, heads=1, sample=0).fit(progress=False)
    assert capsys.readouterr().out == ""


def test_a_text_that_is_too_short_is_an_error(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("abc" * 100, encoding="utf-8")
    with pytest.raises(tl.errors.DataError, match=r"expected a text of more than 650 characters.*got 300.*short\.txt"):
        char_lm(short)


def test_heads_must_share_the_width(text: Path) -> None:
    with pytest.raises(tl.errors.ArgumentError, match="width=10, got heads=4"):
        char_lm(text, width=10)


def test_the_default_text_is_there_without_a_download() -> None:
    recipe = char_lm()
    assert len(recipe.train) > 300_000
