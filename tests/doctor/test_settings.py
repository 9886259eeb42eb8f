"""``[tool.trueloop]``, and flags over it."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

from trueloop.doctor.findings import Finding, Level
from trueloop.doctor.settings import Rules, Settings, below, read
from trueloop.errors import ArgumentError

KNOWN = {"missing-zero-grad": 101, "broadcast-loss": 304, "softmax-before-cross-entropy": 301, "overfitting": 601}


def written(folder: Path, table: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(table)
    return folder


def test_the_nearest_table_upwards_is_read(tmp_path: Path) -> None:
    written(
        tmp_path,
        """
        [tool.trueloop]
        select = ["3xx", 101]
        ignore = "overfitting"
        fail-on = "error"
        show-passed = true
        max-steps = 50
        max-seconds = 2.5
        """,
    )
    written(tmp_path / "a", "[tool.other]\nx = 1")  # has no table of ours, so the next one upwards counts
    (tmp_path / "a/b").mkdir()
    expected = Settings(("3xx", "101"), ("overfitting",), "error", True, 50, 2.5)
    assert read(tmp_path / "a/b") == expected
    written(tmp_path / "a", "[tool.trueloop]")
    assert read(tmp_path / "a/b") == Settings()


def test_flags_win_and_those_not_given_say_nothing() -> None:
    settings = Settings(("3xx",), ("overfitting",), "error", True, 50)
    flagged = settings.flagged(
        {"select": None, "ignore": ("101",), "fail_on": "note", "show_passed": False, "max_steps": 7}
    )
    assert flagged == Settings(("3xx",), ("101",), "note", True, 7)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("fail-on = 'always'", "fail-on is to be note, warning or error, got 'always'"),
        ("max-steps = 0", "max-steps is to be a whole number of at least 1, got 0"),
        ("max-steps = true", "max-steps is to be a whole number of at least 1, got True"),
        ("max-seconds = -1", "max-seconds is to be a number above 0, got -1"),
        ("select = 1.5", "select is to be a list of names and codes of rules, got 1.5"),
        ("show-passed = 'yes'", "show-passed is to be true or false, got 'yes'"),
        ("failon = 'note'", "unknown setting in [tool.trueloop]: 'failon'; did you mean 'fail-on'?"),
        ("select = [", "expected a file that is TOML"),
    ],
)
def test_a_wrong_setting_is_told_with_its_value(tmp_path: Path, table: str, message: str) -> None:
    written(tmp_path, f"[tool.trueloop]\n{table}")
    with pytest.raises(ArgumentError) as raised:
        read(tmp_path)
    assert message in str(raised.value)
    assert raised.value.file == tmp_path / "pyproject.toml"


@pytest.mark.parametrize("key", ["select", "ignore"])
def test_a_rule_that_is_none_is_told_with_the_file_and_the_key(tmp_path: Path, key: str) -> None:
    file = written(tmp_path, f"[tool.trueloop]\n{key} = ['3xx', 'brodcast-loss']") / "pyproject.toml"
    with pytest.raises(ArgumentError) as raised:
        read(tmp_path, KNOWN)
    assert str(raised.value).startswith(
        f"{key} in [tool.trueloop]: expected a rule's name or code, got 'brodcast-loss'"
    )
    assert raised.value.file == file
    assert "did you mean 'broadcast-loss'?" in str(raised.value)
    written(tmp_path, f"[tool.trueloop]\n{key} = ['3xx', 'broadcast-loss', 101]")
    assert getattr(read(tmp_path, KNOWN), key) == ("3xx", "broadcast-loss", "101")


@pytest.mark.parametrize(
    ("select", "ignore", "speak"),
    [
        ((), (), set(KNOWN)),
        (("3xx",), (), {"broadcast-loss", "softmax-before-cross-entropy"}),
        (("3xx", "101"), ("304",), {"softmax-before-cross-entropy", "missing-zero-grad"}),
        ((), ("overfitting", "3xx"), {"missing-zero-grad"}),
    ],
)
def test_names_codes_and_hundreds(select: tuple[str, ...], ignore: tuple[str, ...], speak: set[str]) -> None:
    assert Rules.chosen(KNOWN, select, ignore).speak == speak


@pytest.mark.parametrize("entry", ["brodcast-loss", "999", "9xx", "30"])
def test_a_rule_that_is_none_is_told(entry: str) -> None:
    with pytest.raises(ArgumentError, match="expected a rule's name or code, got") as raised:
        Rules.chosen(KNOWN, [entry])
    assert ("did you mean 'broadcast-loss'?" in str(raised.value)) == (entry == "brodcast-loss")


@pytest.mark.parametrize(
    ("fail_on", "level", "fails"),
    [
        ("warning", "note", False),
        ("warning", "warning", True),
        ("error", "warning", False),
        ("note", "note", True),
    ],
)
def test_the_level_that_decides(fail_on: Level, level: Level, fails: bool) -> None:
    assert Settings(fail_on=fail_on).fails([Finding("x", 1, level, "certain", "…")]) == fails


@pytest.mark.parametrize(
    ("entry", "path", "fits"),
    [
        ("old", "/p/old", True),
        ("old", "/p/a/b/old", True),
        ("old", "/p/older", False),
        ("old", "/q/old", False),
        ("*_pb2.py", "/p/a/x_pb2.py", True),
        ("a/old/", "/p/a/old", True),
        ("./a/old", "/p/a/old", True),
        ("a/old", "/p/b/a/old", False),
        ("a/*.py", "/p/a/b/c.py", True),
        ("**/b/c.py", "/p/b/c.py", True),
        ("a/**/c.py", "/p/a/b/c.py", True),
        ("a/**/c.py", "/p/a/c.py", True),
        ("/q/old", "/q/old", True),
        ("", "/p", False),
    ],
)
def test_what_is_excluded_as_ruff_would(entry: str, path: str, fits: bool) -> None:
    assert any(fnmatch.fnmatchcase(path, pattern) for pattern in below(Path("/p"), entry)) is fits


def test_excluded_paths_are_those_of_the_files_folder(tmp_path: Path) -> None:
    odd = written(tmp_path / "[a]*", "[tool.trueloop]\nexclude = ['old', 'a/b']")
    first, *others = read(odd).exclude
    assert fnmatch.fnmatchcase(str(odd.resolve() / "c" / "old"), first)
    assert any(fnmatch.fnmatchcase(str(odd.resolve() / "a/b"), one) for one in others)
    written(odd, "[tool.trueloop]\nexclude = [1]")
    with pytest.raises(ArgumentError, match="exclude is to be a list of names and paths"):
        read(odd)
