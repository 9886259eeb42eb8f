"""``trueloop doctor``, ``rules`` and ``explain``."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import trueloop
from trueloop.cli.doctor import _parser, output_file, put
from trueloop.doctor.by_reading import by_reading
from trueloop.doctor.output import Report
from trueloop.doctor.pages import pages, written
from trueloop.errors import ArgumentError

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


CHOSEN_ON_TEST = """
import torch
torch.manual_seed(0)
x = torch.randn(64, 4)
y = x[:, :1].clone()
x_train, y_train, x_test, y_test = x[:32], y[:32], x[32:], y[32:]
model = torch.nn.Linear(4, 1)
opt = torch.optim.SGD(model.parameters(), lr=0.1)
best = float("inf")
for epoch in range(8):
    opt.zero_grad()
    torch.nn.functional.mse_loss(model(x_train), y_train).backward()
    opt.step()
    model.eval()
    with torch.no_grad():
        test_loss = torch.nn.functional.mse_loss(model(x_test), y_test).item()
    model.train()
    if test_loss < best:
        best = test_loss
        torch.save(model.state_dict(), "best.pt")
"""


def _findings(ended: subprocess.CompletedProcess[str]) -> list[tuple[str, int]]:
    return [(finding["name"], finding["line"]) for finding in json.loads(ended.stdout)["findings"]]


def test_what_cannot_be_heard_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import torch\ndef load(file):\n    return torch.load(file, weights_only=False)")
    (tmp_path / "train.py").write_text(CHOSEN_ON_TEST.replace("import torch", "import torch, own", 1))
    ended = doctor("--format=json", "train.py", folder=tmp_path)
    found = {(finding["name"], Path(finding["file"]).name) for finding in json.loads(ended.stdout)["findings"]}
    assert found >= {("selected-on-test", "train.py"), ("unsafe-load", "own.py")}
    commented = "    if test_loss < best:  # trueloop: ignore[selected-on-test]"
    (tmp_path / "train.py").write_text(CHOSEN_ON_TEST.replace("    if test_loss < best:", commented))
    ended = doctor("--format=json", "train.py", folder=tmp_path)
    assert "selected-on-test" not in {name for name, _ in _findings(ended)}
    assert "unused-ignore" not in {name for name, _ in _findings(ended)}


def test_code_that_is_read_need_not_have_run(tmp_path: Path) -> None:
    never = "def old(loss, opt):\n    opt.zero_grad()\n    opt.step()\n    loss.backward()\n"
    own = "import torch\ndef load(file):\n    return torch.load(file, weights_only=False)\n"
    (tmp_path / "own.py").write_text(own + never)
    (tmp_path / "train.py").write_text(CHOSEN_ON_TEST.replace("import torch", "import torch, own", 1))
    findings = json.loads(doctor("--format=json", "train.py", folder=tmp_path).stdout)["findings"]
    levels = {(finding["name"], Path(finding["file"]).name): finding["level"] for finding in findings}
    assert levels["selected-on-test", "train.py"] == "warning"
    assert levels["unsafe-load", "own.py"] == "note"
    told = next(finding for finding in findings if finding["name"] == "unsafe-load")
    assert told["evidence"][-1].startswith("read in the text")
    assert {level for (_, file), level in levels.items() if file == "own.py"} == {"note"}


def test_what_is_not_asked_for_explains_nothing(tmp_path: Path) -> None:
    script = SCRIPT.replace("lr=0.001", "lr=0.0")
    (tmp_path / "train.py").write_text(script)
    both = json.loads(doctor("--format=json", "train.py", folder=tmp_path).stdout)["findings"]
    (explained,) = next(finding["explains"] for finding in both if finding["name"] == "missing-zero-grad")
    ended = doctor("--format=json", f"--select={explained}", "train.py", folder=tmp_path)
    assert [name for name, _ in _findings(ended)] == [explained]


def test_a_notebook_is_no_script(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text('{"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}')
    ended = doctor("a.ipynb", folder=tmp_path)
    assert ended.returncode == 2
    assert "expected a script to run, got a notebook: trueloop check reads it" in ended.stderr


def test_what_could_be_heard_is_not_read(script: Path) -> None:
    script.write_text(SCRIPT)
    assert [finding.name for finding in by_reading([str(script)], judged=()).findings] == ["missing-zero-grad"]
    assert by_reading([str(script)], judged={"missing-zero-grad"}).findings == []
    script.write_text(SCRIPT.replace("range(8)", "range(len(sys.argv) - 1)"))  # nothing is heard of it
    ended = doctor("--format=json", "train.py", folder=script.parent)
    assert [name for name, _ in _findings(ended)] == ["missing-zero-grad"]


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
        (["doctor", "--output=.", "x.py"], "expected a file to write the report to, got a folder"),
        (["doctor", "."], "expected a script to run, got a folder without a __main__.py"),
        (["doctor", "--", "gone.py"], "found no such file; for a module, write -m NAME (gone.py)"),
        (["explain", "mising-zero-grad"], "did you mean 'missing-zero-grad'?"),
    ],
)
def test_what_is_wrong_with_the_request_is_told(command: Command, arguments: list[str], message: str) -> None:
    ended = command(*arguments)
    assert ended.code == 2
    assert message in ended.error


@pytest.mark.parametrize("arguments", [["x.py"], ["--examine", "digits"]])
def test_a_wrong_setting_is_told_with_its_file(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.trueloop]\nignore = ['bogus']")
    ended = command("doctor", *arguments)
    assert ended.code == 2
    assert "ignore in [tool.trueloop]: expected a rule's name or code, got 'bogus'" in ended.error
    assert f"({tmp_path / 'pyproject.toml'})" in ended.error


def output(given: str, whole: str = "report") -> str:
    """Writes a report, twice as the command does, and gives what the terminal is told."""
    place, terminal = output_file(given), io.StringIO()
    put("so far", Report(), place, None)
    put(whole, Report(), place, terminal)
    return terminal.getvalue()


def test_a_file_is_replaced_and_of_a_link_its_target(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name, target in (("there", "real/old.txt"), ("dangling", "real/new.txt")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "real/old.txt").write_text("old")
    for name in ("there", "dangling", "plain.txt"):
        assert output(name) == f"trueloop doctor: found nothing; written to {tmp_path / name}\n"
        assert (tmp_path / name).read_text() == "report"
    assert (tmp_path / "there").is_symlink()
    assert (tmp_path / "dangling").is_symlink()
    assert sorted(file.name for file in tmp_path.rglob("*")) == [
        *("dangling", "new.txt", "old.txt", "plain.txt", "real", "there")
    ]


def test_what_is_no_regular_file_is_written_through_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    (tmp_path / "link").symlink_to("pipe")
    output("link")
    reader.join(10)
    assert read == ["report"]
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


def test_a_report_that_cannot_be_written_is_told_after_all(tmp_path: Path) -> None:
    place, terminal = output_file("folder"), io.StringIO()
    (tmp_path / "folder").mkdir()  # the script made it
    put("so far", Report(), place, None)
    put("report", Report(), place, terminal)
    told = f"trueloop doctor: the report could not be written to {tmp_path / 'folder'}: Is a directory\n\nreport"
    assert terminal.getvalue() == told
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")
def test_a_stream_of_ours_is_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('first', flush=True); import atexit; atexit.register(print, 'last')")
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    command = [sys.executable, "-m", "trueloop", "doctor", "--output=stdout", "--", "train.py"]
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout, which a mistake of ours would do away with
    with (tmp_path / "out.txt").open("w") as file:
        subprocess.run(command, stdout=file, env=environment, cwd=tmp_path, check=True, timeout=300)
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("first", "last")
    assert "trueloop doctor: no training was seen" in lines


def test_of_a_script_that_fails_before_torch_nothing_more_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("x = (")
    ended = doctor("train.py", folder=tmp_path)
    assert ended.returncode == 2
    assert "did not import torch" not in ended.stderr
    assert "no training was seen; the script failed (SyntaxError: " in ended.stderr
    (tmp_path / "train.py").write_text("x = 1")
    assert "did not import torch" in doctor("train.py", folder=tmp_path).stderr


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


def test_a_script_that_is_not_there_leaves_nobody_listening(tmp_path: Path) -> None:
    from trueloop.doctor.listen import heard
    from trueloop.doctor.script import Script, run

    import_module("torch")
    with pytest.raises(ArgumentError, match="found no such file"):
        run(Script(str(tmp_path / "gone.py")), lambda ran: 0)
    assert not heard()
