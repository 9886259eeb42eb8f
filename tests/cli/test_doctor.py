"""``trueloop doctor``, ``rules`` and ``explain``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trueloop
from trueloop.cli.doctor import _parser
from trueloop.doctor.pages import pages, written

Command = Callable[..., Any]
ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
print("out", *sys.argv[1:], flush=True)
print("err", file=sys.stderr)
import os
os.system("echo child")
import torch
model = torch.nn.Linear(4, 1)
opt = torch.optim.SGD(model.parameters(), lr=0.001)
for i in range(8):
    torch.nn.functional.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
    opt.step()
"""


def doctor(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trueloop", "doctor", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "train.py"
    file.write_text(SCRIPT)
    return file


def test_the_report_is_kept_apart_from_what_the_script_prints(script: Path) -> None:
    ended = doctor("train.py", "--format", "mine", folder=script.parent)
    assert (ended.returncode, ended.stdout) == (1, "out --format mine\nchild\n")
    assert ended.stderr.startswith("err\nerror[missing-zero-grad] (101): ")
    ended = doctor("--format=json", "train.py", folder=script.parent)
    assert ended.returncode == 1
    assert [finding["name"] for finding in json.loads(ended.stdout)["findings"]] == ["missing-zero-grad"]
    assert ended.stderr == "out\nerr\nchild\n"
    ended = doctor("--format=github", "--output=found.txt", "train.py", folder=script.parent)
    assert (ended.returncode, ended.stdout) == (1, "out\nchild\n")
    assert ended.stderr.startswith("err\ntrueloop doctor: found 1 error; written to ")
    assert (script.parent / "found.txt").read_text().startswith("::error file=train.py,line=11,")


def test_comments_settings_and_flags(script: Path) -> None:
    folder = script.parent
    (folder / "pyproject.toml").write_text("[tool.trueloop]\nmax-steps = 5\nignore = ['101']\nshow-passed = true")
    ended = doctor("train.py", folder=folder)
    assert ended.returncode == 0
    assert "checked and found right:" in ended.stderr
    assert "nothing wrong was found in 5 steps; it was ended after 5 steps (--max-steps)" in ended.stderr
    commented = SCRIPT.replace("(8, 1)).backward()", "(8, 1)).backward()  # trueloop: ignore[missing-zero-grad]")
    script.write_text(commented.replace("import os", "import os  # trueloop: ignore[broadcast-loss]"))
    ended = doctor("--ignore=overfitting", "--max-steps=100", "--fail-on=note", "train.py", folder=folder)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[1].startswith("note[unused-ignore] (901): nothing is kept back by")
    assert "1 kept back by comments" in ended.stderr
    assert "missing-zero-grad]" not in ended.stderr


def test_only_what_is_ours_is_taken_from_the_flags() -> None:
    given = _parser().parse_args(
        ["--select", "3xx,101", "--fail-on=note", "train.py", "--select", "x", "-m", "--", "y"]
    )
    assert given.script == ["train.py", "--select", "x", "-m", "--", "y"]
    assert (given.select, given.fail_on) == (("3xx", "101"), "note")
    given = _parser().parse_args(["--format", "json", "-m", "package.train", "-m", "--output", "z"])
    assert given.module == ["package.train", "-m", "--output", "z"]
    assert given.output is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctor"], "expected a script to run, got none"),
        (["doctor", "--select=brodcast-loss", "x.py"], "did you mean 'broadcast-loss'?"),
        (["doctor", "--max-steps=0", "x.py"], "max-steps is to be a whole number of at least 1, got 0"),
        (["doctor", "--output=nowhere/x.json", "x.py"], "expected a file in a folder that exists"),
        (["explain", "mising-zero-grad"], "did you mean 'missing-zero-grad'?"),
    ],
)
def test_what_is_wrong_with_the_request_is_told(command: Command, arguments: list[str], message: str) -> None:
    ended = command(*arguments)
    assert ended.code == 2
    assert message in ended.error


@pytest.mark.parametrize("entry", ["missing-zero-grad", "101", "unused-ignore"])
def test_explain_shows_a_page(command: Command, entry: str) -> None:
    ended = command("explain", entry)
    assert ended.code == 0
    for heading in ("Sees", "Why it matters", "Usual causes", "Fix"):
        assert f"\n{heading}\n  " in ended.out
    assert "\x1b" not in ended.out
    assert "``" not in ended.out


def test_every_page_can_be_shown(command: Command) -> None:
    for page in pages():
        assert command("explain", page.name).out.startswith(f"{page.name} ({page.code}) · {page.level} · seen by ")


def test_rules_lists_the_catalogue(command: Command) -> None:
    rows = json.loads(command("rules", "--format", "json").out)
    assert [row["code"] for row in rows] == sorted(page.code for page in pages())
    assert {"name", "code", "level", "certainty", "seen_by", "summary"} == set(rows[0])
    told = command("rules").out
    assert all(page.name in told for page in pages())
    assert max(map(len, told.splitlines())) <= 100


def test_names_and_codes_are_each_one_rules() -> None:
    assert len({page.name for page in pages()}) == len(pages()) == len({page.code for page in pages()})


@pytest.mark.parametrize(
    "arguments", [["doctor", "--help"], ["rules"], ["explain", "101"], ["doctor", "--select=0", "x"]]
)
def test_torch_is_not_imported(arguments: list[str]) -> None:
    code = (
        "import sys; from trueloop.cli.main import main; main(sys.argv[1:]); "
        "print(*{name.partition('.')[0] for name in sys.modules} & {'torch', 'numpy', 'tyro'}, file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines()[-1] == ""


def test_the_pages_in_docs_are_up_to_date() -> None:
    folder = ROOT / "docs/rules"
    there = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.md")}
    assert there == written(), "run: python -m trueloop.doctor.pages docs/rules"
