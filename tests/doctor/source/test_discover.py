"""Which files are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trueloop.doctor.settings import below
from trueloop.doctor.source.discover import discover, is_excluded, root_of


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1\n")


def names(folder: Path, *paths: Path) -> list[str]:
    return [os.path.relpath(file, folder) for file in discover(paths or (folder,)).files]


def test_python_files_and_notebooks_sorted(tmp_path: Path) -> None:
    made(tmp_path, "b.py", "a.ipynb", "a/z.py", "c.txt", "d.pyc", "e.PY")
    assert names(tmp_path) == ["a/z.py", "a.ipynb", "b.py"]


def test_what_others_made_is_left_out(tmp_path: Path) -> None:
    left_out = [".git/x.py", ".venv/x.py", "__pycache__/x.py", "build/x.py", "dist/x.py", "x.egg-info/x.py"]
    made(tmp_path, *left_out, "node_modules/x.py", "env/pyvenv.cfg", "env/lib/x.py", "mine/x.py", ".hidden.py")
    assert names(tmp_path) == [".hidden.py", "mine/x.py"]
    # what is named is read
    assert names(tmp_path, tmp_path / "build", tmp_path / "env/lib", tmp_path / ".git/x.py") == [
        "build/x.py",
        "env/lib/x.py",
        ".git/x.py",
    ]


def test_a_file_is_read_once_whatever_its_names(tmp_path: Path) -> None:
    made(tmp_path, "a.py", "sub/b.py", "script")
    (tmp_path / "z.py").symlink_to(tmp_path / "a.py")
    paths = [tmp_path / "sub" / ".." / "a.py", tmp_path, tmp_path / "script", tmp_path / "sub"]
    assert names(tmp_path, *paths) == ["a.py", "sub/b.py", "script"]


def test_links_may_form_loops_and_lead_nowhere(tmp_path: Path) -> None:
    made(tmp_path, "sub/a.py")
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.py").symlink_to("self.py")
    (tmp_path / "nowhere.py").symlink_to("gone.py")
    (tmp_path / "folder.py").mkdir()
    assert names(tmp_path) == ["sub/a.py"]
    assert names(tmp_path, tmp_path / "sub" / "up") == ["sub/up/sub/a.py"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    made(tmp_path, "a.py", "sub/b.py")
    (tmp_path / "sub").chmod(0)
    found = discover([tmp_path])
    (tmp_path / "sub").chmod(0o700)
    assert len(found.files) == 1
    assert "cannot be listed" in found.unread[0].message


def test_the_root_is_above_the_package(tmp_path: Path) -> None:
    made(tmp_path, "p/__init__.py", "p/q/__init__.py", "p/q/a.py", "scripts/b.py")
    assert root_of(str(tmp_path / "p/q/a.py")) == tmp_path
    assert root_of(str(tmp_path / "scripts/b.py")) == tmp_path / "scripts"


def test_what_is_excluded_is_left_out_with_all_below_it(tmp_path: Path) -> None:
    made(tmp_path, "a.py", "old/b.py", "new/old/c.py", "new/x_pb2.py", "new/d.py")
    exclude = [*below(tmp_path, "old"), *below(tmp_path, "*_pb2.py")]
    relative = [os.path.relpath(file, tmp_path) for file in discover([tmp_path], exclude).files]
    assert relative == ["a.py", "new/d.py"]
    named = tmp_path / "old", tmp_path / "new/old/c.py"  # what is named is read all the same
    assert len(discover(named, exclude).files) == 2
    assert discover(named, exclude, also_named=True).files == []
    assert not is_excluded(str(tmp_path / "new/d.py"), exclude)


def test_links_to_the_folder_do_not_matter(tmp_path: Path) -> None:
    made(tmp_path, "project/a.py", "project/old/b.py")
    (tmp_path / "link").symlink_to("project")
    exclude = below(tmp_path / "project", "old")
    assert [Path(file).name for file in discover([tmp_path / "link"], exclude).files] == ["a.py"]
    assert is_excluded(str(tmp_path / "link/old/b.py"), exclude)
