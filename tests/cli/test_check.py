"""``trueloop check``: what it reads, says, mends and returns."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trueloop
from trueloop.cli.check import _parser, run
from trueloop.doctor.findings import Finding, Level, Place
from trueloop.doctor.source.fixes import Checked, Edit, Fix, lines_of
from trueloop.doctor.source.read import Source

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


def stub(source: Source, *, root: Path | None = None) -> list[Checked]:
    """Rules that know three lines."""
    found = []
    for number, line in enumerate(lines_of(source.text), 1):
        code = line.partition("#")[0].strip()
        if code == "crash()":
            raise RuntimeError("the rule broke")
        if code == "die()":
            os._exit(1)
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
    validated(json.loads(out))


def validated(log: dict[str, Any]) -> None:
    """What SARIF's schema asks of the parts that the doctor's own tests do not hold."""
    for result in log["runs"][0]["results"]:
        assert result["level"] in ("none", "note", "warning", "error")
        assert set(result) <= {
            "ruleId",
            "ruleIndex",
            "level",
            "message",
            "locations",
            "relatedLocations",
            "partialFingerprints",
            "properties",
            "fixes",
        }
        for fix in result.get("fixes", ()):
            assert set(fix) <= {"description", "artifactChanges"}
            assert fix["artifactChanges"]  # minItems 1
            for change in fix["artifactChanges"]:
                assert change["replacements"]  # minItems 1
                assert all(region["deletedRegion"]["startColumn"] >= 1 for region in change["replacements"])


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
    assert check("train.py", "--diff")[:2] == (0, "")


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


# Files of all kinds


def test_what_cannot_be_read_is_told_and_others_go_on(check: Check, script: Path) -> None:
    (script.parent / "bad.py").write_text("import torch\ndef f(:\n")
    (script.parent / "coded.py").write_bytes(b"\n\nx = '\xff'\n")
    code, out, _ = check("bad.py", "coded.py", "train.py", "--select=304", "--fail-on=error")
    assert code == 1
    assert "error[does-not-parse] (903): this could not be read: invalid syntax\n --> bad.py:2\n" in out
    assert "it is not utf-8" in out
    assert "load(x) is wrong" in out


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


@pytest.mark.slow
@pytest.mark.parametrize("package", ["json", "torch"])
def test_any_python_file_passes_through(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All files of the standard library (tests of Python's with broken files among them), and of torch."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parents[1 if package == "json" else 0]
    assert run([str(folder), "--no-cache", "--diff", "--unsafe-fixes"]) != 2
    assert "Traceback" not in capsys.readouterr().err


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
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import test_check; from trueloop.cli.check import run; "
        "sys.exit(run(sys.argv[1:], test_check.stub))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), "-", "--fix"],
        input=script.read_bytes(),
        env=environment,
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
