"""``trueloop check``: what it reads, says, mends and returns."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trueloop
from trueloop.cli.check import _parser, run
from trueloop.doctor.findings import Finding, Level, Place
from trueloop.doctor.source.fixes import Checked, Edit, Fix, lines_of
from trueloop.doctor.source.read import Source
from trueloop.errors import ArgumentError

ROOT = Path(__file__).parents[2]
Ended = tuple[int, str, str]
Check = Callable[..., Ended]

RULES: dict[str, tuple[str, int, Level, str | None, bool]] = {
    "load(x)": ("broadcast-loss", 304, "warning", "load(x, weights_only=True)", True),
    "opt.step()": ("missing-zero-grad", 101, "error", "opt.zero_grad(); opt.step()", False),
    "tell(x)": ("overfitting", 601, "note", None, True),
}
"""What a line says, and what is found there."""

SCRIPT = "import torch\n\n# é\nload(x)\nfor batch in data:\n    opt.step()\n"

MISTAKEN = """\
import torch

model = torch.nn.Linear(4, 1)
opt = torch.optim.SGD(model.parameters(), lr=0.1)
for i in range(8):
    loss = torch.nn.functional.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1))
    loss.backward()
    opt.step()
"""


STUBBED = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import test_check; from trueloop.cli import check, main; "
    "run = check.run; check.run = lambda given: run(given, test_check.stub); "
    "sys.exit(main.main(['check', *sys.argv[1:]]))"
)
"""The command with these rules, in a process of its own: `python -c STUBBED FOLDER_OF_THIS_FILE ARGUMENTS`."""

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}


def stub(source: Source, *, root: Path | None = None) -> list[Checked]:
    """Rules that know three lines."""
    found = []
    for number, line in enumerate(lines_of(source.text), 1):
        code = line.partition("#")[0].strip()
        if code == "crash()":
            raise RuntimeError("the rule broke")
        if code == "die()":
            os._exit(1)
        if code == "wait()":
            Path(source.path).with_suffix(".waits").touch()
            time.sleep(600)
        if code in RULES:
            name, number_of_rule, level, better, safe = RULES[code]
            column = line.index(code)
            edit = Edit((number, column), (number, column + len(code)), better or "")
            fix = None if better is None else Fix(f"write ``{better}``", safe, (edit,))
            place = Place(source.path, number)
            found.append(Checked(Finding(name, number_of_rule, level, "certain", f"{code} is wrong", place=place), fix))
    return found


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    def check(*arguments: str) -> Ended:
        code = run([*arguments, "--cache", "cache"], stub)
        out, err = capsys.readouterr()
        return code, out, err

    return check


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The tests of this folder stand in ``tmp_path``."""
    file = tmp_path / "train.py"
    file.write_bytes(SCRIPT.replace("\n", "\r\n").encode())
    return file


def notebook(*cells: str) -> str:
    made = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": lines_of(cell)} for cell in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


# What it says


def test_text_shows_findings_and_fixes_as_diffs(check: Check, script: Path) -> None:
    code, out, err = check("train.py")
    assert (code, err) == (1, "")
    assert "warning[broadcast-loss] (304): load(x) is wrong\n --> train.py:4\n" in out
    assert "fix[broadcast-loss] of train.py:4: write `load(x, weights_only=True)` (--fix)\n--- train.py\n" in out
    assert "(--unsafe-fixes: it changes what the script does)\n" in out
    assert "-load(x)\r\n+load(x, weights_only=True)\r\n" in out.replace("\n", "\r\n").replace("\r\r", "\r")
    assert out.splitlines()[-1] == (
        "trueloop check: found 1 error and 1 warning; 1 file read; can be mended: 1 by --fix, 1 by --unsafe-fixes"
    )


def test_nothing_found(check: Check, tmp_path: Path) -> None:
    assert check() == (0, "trueloop check: nothing wrong was found; 0 files read\n", "")
    (tmp_path / "a.py").write_text("import torch\n")
    assert check(".") == (0, "trueloop check: nothing wrong was found; 1 file read\n", "")


def test_json_is_the_doctors_with_fixes(check: Check, script: Path) -> None:
    code, out, _ = check("train.py", "--format=json")
    told = json.loads(out)
    assert code == 1
    first, second = told["findings"]
    assert (first["name"], first["line"], first["source"], first["file"]) == (
        "broadcast-loss",
        4,
        "load(x)",
        str(script),
    )
    assert (first["fix"]["safe"], second["fix"]["safe"]) == (True, False)
    assert first["fix"]["diff"].startswith("--- train.py\n+++ train.py\n@@")
    assert (told["script"], told["steps"], told["complete"], told["files"]) == (None, None, True, 1)


def test_sarif_carries_fixes(check: Check, script: Path) -> None:
    _, out, _ = check("train.py", "--format=sarif")
    run_of_it = json.loads(out)["runs"][0]
    first, second = run_of_it["results"]
    assert [first["ruleId"], second["ruleId"]] == ["broadcast-loss", "missing-zero-grad"]
    (change,) = first["fixes"][0]["artifactChanges"]
    assert change["artifactLocation"] == {"uri": "train.py", "uriBaseId": "%SRCROOT%"}
    assert change["replacements"] == [
        {
            "deletedRegion": {"startLine": 4, "startColumn": 1, "endLine": 4, "endColumn": 8},
            "insertedContent": {"text": "load(x, weights_only=True)"},
        }
    ]


def test_github_and_statistics(check: Check, script: Path) -> None:
    assert check("train.py", "--format=github")[1].startswith(
        "::warning file=train.py,line=4,title=broadcast-loss (304)::"
    )
    (script.parent / "more.py").write_text("import torch\nopt.step()\n")
    code, out, _ = check(".", "--statistics")
    assert (code, out) == (1, "    2  101  missing-zero-grad  (has fixes)\n    1  304  broadcast-loss  (has fixes)\n")
    assert json.loads(check(".", "--statistics", "--format=json")[1])[0]["count"] == 2


def test_the_report_may_go_to_a_file(check: Check, script: Path) -> None:
    code, out, _ = check("train.py", "--format=json", "--output=found.json")
    assert (code, out) == (
        1,
        "trueloop check: found 1 error and 1 warning; written to " + str(Path.cwd() / "found.json\n"),
    )
    assert len(json.loads(Path("found.json").read_text())["findings"]) == 2


# What is asked for


def test_settings_flags_and_comments(check: Check, script: Path) -> None:
    assert check("train.py", "--select=1xx")[1].count("is wrong") == 1
    assert check("train.py", "--ignore=missing-zero-grad", "--fail-on=error")[0] == 0
    (script.parent / "pyproject.toml").write_text("[tool.trueloop]\nignore = ['101']\nfail-on = 'error'\n")
    code, out, _ = check("train.py")
    assert (code, out.count("is wrong")) == (0, 1)
    (script.parent / "pyproject.toml").unlink()
    script.write_text(SCRIPT.replace("step()", "step()  # trueloop: ignore[missing-zero-grad, brodcast-loss]"))
    code, out, _ = check("train.py")
    assert "1 kept back by comments" in out
    assert "note[unused-ignore] (901)" in out
    assert "did you mean" in out
    assert check("train.py", "--fix", "--unsafe-fixes")[0] == 0  # what is kept back is not mended
    assert "    opt.step()  # trueloop" in script.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py"], "expected files and folders that exist, got 'nowhere.py'"),
        (["--select=brodcast-loss", "."], "did you mean 'broadcast-loss'?"),
        (["--output=nowhere/x.json", "."], "expected a file in a folder that exists"),
        (["--statistics", "--format=sarif", "."], "expected --format text or json with --statistics"),
        (["-", "a.py"], "expected `-` alone"),
        (["--jobs=0", "."], "expected --jobs of at least 1, got 0"),
    ],
)
def test_what_is_wrong_with_the_request_is_told(
    command: Callable[..., Any], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "a.py").write_text("")
    ended = command("check", *arguments)
    assert ended.code == 2
    assert message in ended.error


def test_excluded_files_are_read_only_if_they_are_named(check: Check, script: Path) -> None:
    (script.parent / "old").mkdir()
    script.rename(script.parent / "old/train.py")
    (script.parent / "pyproject.toml").write_text("[tool.trueloop]\nexclude = ['old']\n")
    assert check(".")[1] == "trueloop check: nothing wrong was found; 0 files read\n"
    assert check("old/train.py")[0] == 1
    assert check("old/train.py", "--force-exclude")[:2] == (
        0,
        "trueloop check: nothing wrong was found; 0 files read\n",
    )
    assert check(".", "--exclude=new,*.txt")[0] == 1, "the flag takes the place of the setting"
    (script.parent / "pyproject.toml").write_text("[tool.trueloop]\nignore = ['brodcast-loss']\n")
    with pytest.raises(ArgumentError) as raised:
        check(".")
    assert raised.value.file == script.parent / "pyproject.toml"


def test_exit_codes_as_ruffs(check: Check, script: Path) -> None:
    assert check("train.py", "--exit-zero")[0] == 0
    assert check("train.py", "--exit-zero", "--diff")[0] == 1
    (script.parent / "bad.py").write_text("crash()\n")
    assert check("bad.py", "--exit-zero")[0] == 2
    script.write_text("import torch\nload(x)\n")
    assert check("train.py", "--fix")[0] == 0, "all is mended"


def test_comments_that_are_for_the_doctor_are_left_to_it(check: Check, script: Path) -> None:
    """Rules that listen may have a use for a comment that reading has none for; those that only read may not."""
    names = "missing-zero-grad, exploding-gradients, unsafe-load"
    script.write_text(f"import torch\nx = 1  # trueloop: ignore[{names}]\n")
    out = check("train.py")[1]
    assert "nothing is kept back by ignore[unsafe-load]: unsafe-load was not found here" in out
    assert out.count("unused-ignore") == 1


def test_a_comment_that_only_reading_has_a_use_for_is_left_alone_by_the_doctor(tmp_path: Path) -> None:
    never = (
        "def never(x, y):\n"
        "    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1))\n"
        "    return torch.nn.CrossEntropyLoss()(net(x), y)  # trueloop: ignore[softmax-before-cross-entropy]\n\n\n"
    )
    text = MISTAKEN.replace("import torch\n\n", f"import torch\n\n\n{never}").replace(
        "opt.step()\n", "opt.step()\n    opt.zero_grad()\n"
    )
    (tmp_path / "train.py").write_text(text)
    for verb in ("check", "doctor"):
        command = [sys.executable, "-m", "trueloop", verb, "train.py"]
        ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert ended.returncode in (0, 1), ended.stderr
        assert "unused-ignore" not in ended.stdout + ended.stderr


# What it mends


def test_safe_fixes_are_applied_and_all_else_stays(check: Check, script: Path) -> None:
    script.chmod(0o755)
    code, out, _ = check("train.py", "--fix")
    assert code == 1  # the error is left
    assert script.read_bytes() == SCRIPT.replace("load(x)", "load(x, weights_only=True)").replace("\n", "\r\n").encode()
    assert script.stat().st_mode & 0o777 == 0o755
    assert "fixed:\n  train.py: broadcast-loss: write `load(x, weights_only=True)`\n" in out
    before = script.read_bytes()
    assert "fixed:" not in check("train.py", "--fix")[1]
    assert script.read_bytes() == before


def test_unsafe_fixes_are_said_to_be_so(check: Check, script: Path) -> None:
    code, out, _ = check("train.py", "--unsafe-fixes")
    assert code == 0
    assert "opt.zero_grad(); opt.step()" in script.read_text()
    assert "Unsafe fixes change what the script does" in out
    assert "nothing wrong was found" in out


def test_a_diff_changes_nothing_and_can_be_applied(check: Check, script: Path) -> None:
    script.write_text(SCRIPT)
    code, out, err = check("train.py", "--diff", "--unsafe-fixes")
    assert code == 1
    assert script.read_text() == SCRIPT
    assert "1 file would be changed" in err
    subprocess.run(["patch", "-p0"], input=out, text=True, check=True, capture_output=True)
    assert check("train.py", "--diff") == (0, "", "trueloop check: 0 files would be changed\n")
    script.write_text(SCRIPT + "load(x)\n")
    (script.parent / "bad.py").write_text("x = (\n")
    assert check(".", "--diff")[2] == (
        "bad.py:1: this could not be read: '(' was never closed\n"
        "trueloop check: 1 file would be changed; 1 more fix by --unsafe-fixes\n"
    )


def test_what_is_clean_keeps_its_bytes_and_its_time(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(b"\xef\xbb\xbfimport torch \r\n\x0c\n")
    before = file.stat().st_mtime_ns, file.read_bytes()
    assert check("--fix", "--unsafe-fixes", ".")[0] == 0
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before


def test_only_what_is_asked_for_is_mended(check: Check, script: Path) -> None:
    check("train.py", "--fix", "--unsafe-fixes", "--select=304")
    assert "zero_grad" not in script.read_text()
    assert "weights_only" in script.read_text()


def test_a_link_stays_a_link(check: Check, script: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to("train.py")
    check("link.py", "--fix")
    assert link.is_symlink()
    assert b"weights_only" in script.read_bytes()


def test_a_diff_can_be_applied_whatever_the_file(check: Check, tmp_path: Path) -> None:
    files = {
        "with blank.py": SCRIPT.encode(),
        "ümlaut.py": SCRIPT.encode(),
        'a\nb".py': SCRIPT.encode(),
        "bom.py": b"\xef\xbb\xbfimport torch\nload(x)\n",
        "crlf.py": SCRIPT.replace("\n", "\r\n").encode(),
        "cr.py": SCRIPT.replace("\n", "\r").encode(),
        "latin.py": b"# coding: latin-1\n# \xe9\nimport torch\nload(x)",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", STUBBED, str(Path(__file__).parent), ".", "--no-cache", "--diff", "--unsafe-fixes"]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False)
    subprocess.run(["patch", "-p0", "--binary"], input=ended.stdout, check=True, capture_output=True)
    patched = {name: (tmp_path / name).read_bytes() for name in files}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    check(".", "--unsafe-fixes")
    assert patched == {name: (tmp_path / name).read_bytes() for name in files}
    assert all(patched[name] != content for name, content in files.items())


def test_a_write_protected_file_is_not_mended(check: Check, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write to any
    before = script.read_bytes()
    code, _, err = check("train.py", "--fix")
    assert (code, script.read_bytes()) == (2, before)
    assert err.endswith("not mended: it is write-protected\n")


# Files of all kinds


def test_what_cannot_be_read_is_told_and_others_go_on(check: Check, script: Path) -> None:
    (script.parent / "bad.py").write_text("import torch\ndef f(:\n")
    (script.parent / "coded.py").write_bytes(b"\n\nx = '\xff'\n")
    code, out, _ = check("bad.py", "coded.py", "train.py", "--select=304", "--fail-on=error")
    assert code == 1
    assert "error[does-not-parse] (903): this could not be read: invalid syntax\n --> bad.py:2\n" in out
    assert "it is not utf-8" in out
    assert "load(x) is wrong" in out


@pytest.mark.parametrize("form", ["text", "json", "sarif", "github"])
def test_names_and_files_of_any_kind(check: Check, tmp_path: Path, form: str) -> None:
    (tmp_path / os.fsdecode(b"bad\xff name\n'.py")).write_text("import torch\nload(x)\n")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "folder.py").mkdir()
    code, out, err = check(".", "pipe.py", "loop.py", f"--format={form}", "--fix")
    assert (code, err) == (1, "")
    assert "it is no regular file" in out
    assert out.count("does-not-parse") >= 2
    assert (tmp_path / os.fsdecode(b"bad\xff name\n'.py")).read_text().endswith("load(x, weights_only=True)\n")


def test_a_rule_that_breaks_is_told_and_others_go_on(check: Check, script: Path) -> None:
    (script.parent / "bad.py").write_text("import torch\ncrash()\n")
    code, out, err = check(".", "--fail-on=error")
    assert code == 2
    assert "load(x) is wrong" in out
    assert err.endswith("bad.py: RuntimeError: the rule broke\n")


def test_processes_share_the_files_and_may_die(check: Check, tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.py").write_text("import torch\nload(x)\n" + "# padding\n" * 10_000)
    (tmp_path / "c.py").write_text("import torch\ndie()\n")
    code, out, err = check(".", "--jobs=2", "--format=json")
    assert code == 2
    assert [Path(one["file"]).name for one in json.loads(out)["findings"]] == ["a.py", "b.py", "d.py"]
    assert err.endswith("c.py: the process that read it died\n")


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.py").write_text("import torch\nwait()\n" + "# padding\n" * 10_000)
    command = [sys.executable, "-c", STUBBED, str(Path(__file__).parent), ".", "--no-cache", "--jobs=2"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while len(list(tmp_path.glob("*.waits"))) < 2:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 130


def test_what_is_kept_is_not_read_again(check: Check, script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = check("train.py")

    def never(source: Source, *, root: Path | None = None) -> list[Checked]:
        raise AssertionError

    code = run(["train.py", "--cache", "cache"], never)
    out, err = capsys.readouterr()
    assert (code, out, err) == first
    assert run(["train.py", "--no-cache"], never) == 2


def test_notebooks_by_cell_and_line(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "n.ipynb"
    file.write_text(notebook("%pip install x\nimport torch", "\nload(x)\n!ls"))
    code, out, _ = check("n.ipynb")
    assert code == 1
    assert " --> n.ipynb:cell 2:2\n  |\n2 | load(x)\n" in out
    assert "--- n.ipynb:cell 2\n" in out
    told = json.loads(check("n.ipynb", "--format=json")[1])["findings"][0]
    assert (told["file"], told["cell"], told["line"], told["source"]) == (str(file), 2, 2, "load(x)")
    line = next(number for number, line in enumerate(file.read_text().splitlines(), 1) if "load(x)" in line)
    assert (
        f"file=n.ipynb,line={line},title=broadcast-loss (304)::cell 2, line 2: "
        in check("n.ipynb", "--format=github")[1]
    )
    before = file.read_text()
    assert check("n.ipynb", "--fix")[0] == 0
    assert file.read_text() == before.replace("load(x)", "load(x, weights_only=True)")


def test_a_cell_that_is_not_python_is_told_by_cell_and_line(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "n.ipynb"
    file.write_text(notebook("import torch", "%time x\nx = ("))
    assert (
        "does-not-parse] (903): this could not be read: '(' was never closed\n --> n.ipynb:cell 2:2\n  |\n2 | x = (\n"
        in (check("n.ipynb")[1])
    )
    told = json.loads(check("n.ipynb", "--format=json")[1])["findings"][0]
    assert (told["file"], told["cell"], told["line"], told["fix"]) == (str(file), 2, 2, None)
    result = json.loads(check("n.ipynb", "--format=sarif")[1])["runs"][0]["results"][0]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "n.ipynb"
    assert "x = (" in file.read_text().splitlines()[place["region"]["startLine"] - 1]


# The doctor's own rules


def test_a_real_mistake_is_found_and_mended(command: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text(MISTAKEN)
    ended = command("check", "train.py", "--no-cache")
    assert ended.code == 1
    assert ended.out.startswith("error[missing-zero-grad] (101): ")
    ended = command("check", "train.py", "--no-cache", "--unsafe-fixes")
    assert (ended.code, "nothing wrong was found" in ended.out) == (0, True)
    assert len(lines_of(file.read_text())) == len(lines_of(MISTAKEN)) + 1


@pytest.mark.parametrize("folder", ["json", "asyncio"])
def test_what_has_nothing_to_do_with_training_is_left_alone(command: Callable[..., Any], folder: str) -> None:
    standard = str(Path(json.__file__).parents[1] / folder)
    assert command("check", standard, "--no-cache", "--jobs=1").code == 0
    assert command("check", standard, "--no-cache", "--jobs=1", "--diff", "--unsafe-fixes").out == ""


# Standard input


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_standard_input(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, SCRIPT)
    code, out, _ = check("-")
    assert code == 1
    assert " --> <stdin>:4\n  |\n4 | load(x)\n" in out
    Path("train.py").write_text("what an editor has not saved yet\n" * 9)
    piped(monkeypatch, SCRIPT)
    assert " --> train.py:4\n  |\n4 | load(x)\n" in check("-", "--stdin-filename=train.py")[1]
    piped(monkeypatch, SCRIPT)
    code, out, _ = check("-", "--diff")
    assert (code, "+load(x, weights_only=True)" in out) == (1, True)
    piped(monkeypatch, "import torch\ndef f(:")
    assert check("-")[0] == 1


def test_standard_output_is_the_mended_script(script: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUBBED, str(Path(__file__).parent), "-", "--fix"],
        input=script.read_bytes(),
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert ended.stdout == script.read_bytes().replace(b"load(x)", b"load(x, weights_only=True)")
    assert b"found 1 error" in ended.stderr
    assert ended.returncode == 1


def test_a_terminal_need_not_know_every_letter(tmp_path: Path) -> None:
    (tmp_path / "é.py").write_text(f"# 値\n{MISTAKEN}", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1]), "PYTHONIOENCODING": "ascii"}
    for flags in ([], ["--diff", "--unsafe-fixes"], ["--format=json"]):
        ended = subprocess.run(
            [sys.executable, "-m", "trueloop", "check", ".", "--no-cache", *flags],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert ended.returncode == 1
        assert b"Traceback" not in ended.stderr


# Where it is called from


def test_the_hooks_and_the_action_call_what_there_is() -> None:
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text()
    entries = [line.partition("entry: ")[2].split() for line in hooks.splitlines() if "entry: " in line]
    assert [entry[:2] for entry in entries] == [["trueloop", "check"]] * 2
    action = (ROOT / "action.yml").read_text()
    calls = [line.strip().split(" || ")[0].split() for line in action.splitlines() if "trueloop check $" in line]
    assert len(calls) == 2
    for call in [*entries, *calls]:
        _parser().parse_args([argument for argument in call[2:] if argument != "$ARGUMENTS"])


# What it costs


@pytest.mark.parametrize("arguments", [["check", "--help"], ["check", "."], ["check", "plain.py"]])
def test_neither_torch_nor_libcst_is_imported_without_need(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "plain.py").write_text("print('no training here')\n")
    code = (
        "import sys; from trueloop.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*{'torch', 'numpy', 'libcst', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1]), "XDG_CACHE_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines()[-1] == ""
