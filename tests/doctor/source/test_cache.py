"""What was found the last time holds for as long as nothing that counts has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.source.cache import Cache, user_folder
from trueloop.doctor.source.discover import root_of
from trueloop.doctor.source.fixes import Checked, Edit, Fix

FOUND = [
    Checked(
        Finding(
            "missing-zero-grad",
            101,
            "error",
            "certain",
            "gradients add up",
            evidence=("one", "zwei é"),
            place=Place("a.py", 3),
            related=((Place("b.py", 1), "here"),),
            explains=("not-learning",),
        ),
        Fix("clear them", False, (Edit((3, 0), (3, 0), "opt.zero_grad()\n"), Edit((4, 1), (5, 2), ""))),
    ),
    Checked(Finding("overfitting", 601, "warning", "measured", "…")),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "p").mkdir(parents=True)
    (folder / "train.py").write_text("import os, torch, missing\nfrom p import model\n")
    (folder / "p/__init__.py").write_text("import torch\n")
    (folder / "p/model.py").write_text("import torch\nfrom . import layers\n")
    (folder / "p/layers.py").write_text("x = 1\n")
    (folder / "other.py").write_text("x = 1\n")
    return folder


def load(cache: Path, file: Path, maker: str = "me") -> list[Checked] | None:
    """As a new run would."""
    return Cache(cache, maker).load(str(file), file.read_bytes(), root_of(str(file)))


def store(cache: Path, file: Path, maker: str = "me") -> None:
    Cache(cache, maker).store(str(file), file.read_bytes(), root_of(str(file)), FOUND)


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path, project: Path) -> None:
    file = project / "train.py"
    assert load(tmp_path / "cache", file) is None
    store(tmp_path / "cache", file)
    assert load(tmp_path / "cache", file) == FOUND
    assert [type(checked.fix) for checked in load(tmp_path / "cache", file) or ()] == [Fix, type(None)]


@pytest.mark.parametrize("changed", ["train.py", "p/model.py", "p/layers.py", "p/__init__.py", "missing.py"])
def test_a_change_of_the_file_or_of_what_it_imports_counts(tmp_path: Path, project: Path, changed: str) -> None:
    store(tmp_path / "cache", project / "train.py")
    with (project / changed).open("a") as file:  # missing.py is new
        file.write("# changed\n")
    assert load(tmp_path / "cache", project / "train.py") is None


def test_a_change_elsewhere_does_not(tmp_path: Path, project: Path) -> None:
    store(tmp_path / "cache", project / "train.py")
    (project / "other.py").write_text("x = 2\n")
    assert load(tmp_path / "cache", project / "train.py") == FOUND


def test_another_version_or_other_rules_read_again(tmp_path: Path, project: Path) -> None:
    store(tmp_path / "cache", project / "train.py", maker="1")
    assert load(tmp_path / "cache", project / "train.py", maker="1") == FOUND
    assert load(tmp_path / "cache", project / "train.py", maker="2") is None


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b"x\n{", None])
def test_a_damaged_entry_is_none(tmp_path: Path, project: Path, damage: bytes | None) -> None:
    store(tmp_path / "cache", project / "train.py")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes().replace(b"zwei", b"drei") if damage is None else damage)
    assert load(tmp_path / "cache", project / "train.py") is None
    store(tmp_path / "cache", project / "train.py")
    assert load(tmp_path / "cache", project / "train.py") == FOUND


def test_a_file_changed_in_this_run_is_seen(tmp_path: Path, project: Path) -> None:
    cache, file, model = Cache(tmp_path / "cache"), project / "train.py", project / "p/model.py"
    cache.store(str(file), file.read_bytes(), project, FOUND)
    model.write_text("import torch\n")
    cache.forget(str(model))
    assert cache.load(str(file), file.read_bytes(), project) is None


def test_a_disk_that_does_not_want_it_is_no_error(tmp_path: Path, project: Path) -> None:
    (tmp_path / "file").write_text("")
    store(tmp_path / "file" / "cache", project / "train.py")
    assert load(tmp_path / "file" / "cache", project / "train.py") is None
    assert Cache(None).load(str(project / "train.py"), b"", project) is None


def test_it_lies_in_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "trueloop" / "check"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder() == tmp_path / ".cache" / "trueloop" / "check"
