from __future__ import annotations

from pathlib import Path

import pytest

from trueloop.cli import find as finder
from trueloop.cli.find import bundled, find
from trueloop.errors import ArgumentError, UnknownNameError


def test_a_file_is_found_from_anywhere_later(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(tiny)
    assert (found.name, found.reference) == ("tiny", f"{tmp_path}/mine.py:tiny")
    monkeypatch.chdir("/")
    assert find(found.reference).function is found.function


def test_a_package_is_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "shop_recipes").mkdir()
    (tmp_path / "shop_recipes" / "small.py").write_text("def first(): ...")
    found = find("shop_recipes.small:first")
    assert (found.name, found.reference) == ("first", "shop_recipes.small:first")


def test_a_file_finds_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart" / "neighbour.py").write_text("depth = 3")
    (tmp_path / "apart" / "own.py").write_text("from neighbour import depth\ndef recipe(): return depth")
    assert find("apart/own.py:recipe").function() == 3


def test_a_file_does_not_take_the_place_of_a_module(tmp_path: Path) -> None:
    import json

    (tmp_path / "json.py").write_text("def recipe(): ...")
    assert find("json.py:recipe").function.__module__ == "recipe_json"
    import json as later

    assert later is json


def test_bundled_recipes_are_read_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text('raise SystemExit\ndef slow():\n    """It takes long.\n\n    More."""\n')
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "helper.py").write_text("def another(): ...")
    monkeypatch.setattr(finder, "BUNDLED", tmp_path)
    assert bundled() == {"slow": "It takes long."}


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_recipe_is_found_and_says_what_it_is(name: str) -> None:
    found = find(name)
    assert found.function.__name__ == name
    assert bundled()[name].endswith(".")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mine.py", "expected a recipe as file.py:function, got 'mine.py'"),
        ("mine.py:", "expected a recipe as file.py:function"),
        ("other.py:tiny", r"expected a file with a recipe, found none \(other.py\)"),
        ("mine.py:tny", r"unknown recipe in mine.py: 'tny'; did you mean 'tiny'"),
        (
            "no_such_package.at_all:tiny",
            "there is no module 'no_such_package'; for a file, write no_such_package/at_all.py",
        ),
    ],
)
def test_what_is_not_there(tiny: str, reference: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        find(reference)


def test_an_unknown_name_gets_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits.py").write_text('def digits():\n    """Digits."""')
    monkeypatch.setattr(finder, "BUNDLED", tmp_path)
    with pytest.raises(UnknownNameError, match="unknown recipe 'digts'; did you mean 'digits'"):
        find("digts")


def test_what_the_recipe_itself_raises_passes(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_package_of_mine")
    for _ in range(2):  # and it is not half there the second time
        with pytest.raises(ModuleNotFoundError, match="no_such_package_of_mine"):
            find("broken.py:recipe")
