"""What is found, in each format."""

from __future__ import annotations

import json
import linecache
from pathlib import Path
from typing import Any

import pytest

from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.output import FORMATS, Report, Sentence, counted, screen, text, written

CODE = """\
for x, y in loader:
\tprediction = model(x)  # (batch, 1)

    loss = criterion(prediction, "# not a comment")  # 値
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(CODE)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)


def finding(**other: Any) -> Finding:
    file = str(Path.cwd() / "train.py")
    given: dict[str, Any] = {
        "evidence": ("the shapes are (8, 1) and (8,)", "the table is 8 × 8"),
        "meaning": "the model learns to ignore its input",
        "help": "``prediction.squeeze(1)``",
        "place": Place(file, 4),
        "step": 3,
        "epoch": 0,
        "related": ((Place(file, 2), "made here"), (Place("/elsewhere/model.py", 7), "the last layer")),
        "explains": ("not-learning",),
    }
    return Finding("broadcast-loss", 304, "error", "certain", "predictions meet targets", **(given | other))


def test_text_in_the_manner_of_a_compiler() -> None:
    report = Report([finding()], steps=12, kept_back=[finding()], unseen=[Sentence(None, "torch.compile is in use")])
    assert text.write(report) == (
        """\
error[broadcast-loss] (304): predictions meet targets
 --> train.py:4
  |
2 |     prediction = model(x)  # (batch, 1)
  |     --------------------- made here
...
4 |     loss = criterion(prediction, "# not a comment")  # 値
  |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
 ::: /elsewhere/model.py:7
  = evidence: the shapes are (8, 1) and (8,)
  = evidence: the table is 8 × 8
  = certainty: certain, seen at step 3, epoch 1
  = explains: not-learning
  = meaning: the model learns to ignore its input
  = help: `prediction.squeeze(1)`

not seen:
  torch.compile is in use

trueloop doctor: found 1 error in 12 steps; 1 kept back by comments
"""
    )


def test_the_width_of_letters_counts_and_long_lines_are_cut(tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(f"値 = '値'\nx = '{'y' * 300}'\n")
    lines = text.write(Report([finding(place=Place("wide.py", 1), related=())])).splitlines()
    assert lines[4] == "  | " + "^" * 9
    lines = text.write(Report([finding(place=Place("wide.py", 2), related=())])).splitlines()
    assert lines[3].endswith("yyy…")
    assert max(map(len, lines)) < 160


def test_a_line_that_cannot_be_read_and_no_line_at_all() -> None:
    told = text.write(Report([finding(place=Place("gone.py", 9), related=())]))
    assert told.splitlines()[1:3] == [" --> gone.py:9", "  = evidence: the shapes are (8, 1) and (8,)"]
    told = text.write(Report([finding(place=None, related=())]))
    assert told.splitlines()[1] == "  = evidence: the shapes are (8, 1) and (8,)"


def test_long_sentences_are_broken_under_their_beginning() -> None:
    told = text.write(Report([finding(meaning="so it goes " * 20, place=None, related=())]), width=60).splitlines()
    start = next(number for number, line in enumerate(told) if "= meaning:" in line)
    indent = " " * len("  = meaning: ")
    assert told[start + 1].startswith(indent)
    assert told[start + 1].removeprefix(indent)[0] != " "
    assert max(map(len, told)) <= 60


def test_colours_only_for_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    terminal: Any = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert screen(terminal)[0]
    assert not screen(None)[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not screen(terminal)[0]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not screen(terminal)[0]
    report = Report([finding()], steps=1)
    assert "\x1b[1;31merror[broadcast-loss]\x1b[0m" in text.write(report, colours=True)
    assert "\x1b" not in text.write(report)


@pytest.mark.parametrize(
    ("report", "last"),
    [
        (Report(steps=120), "nothing wrong was found in 120 steps"),
        (Report(steps=1), "nothing wrong was found in 1 step"),
        (Report(steps=0), "no training was seen"),
        (Report(), "nothing wrong was found"),
        (
            Report(steps=5, ended="the script failed (ValueError: x)"),
            "nothing wrong was found in 5 steps; the script failed ",
        ),
        (
            Report(steps=5, passed=[Sentence("a", "x")] * 3, unseen=[Sentence("b", "y")]),
            "nothing wrong was found in 5 steps; 3 checks passed, 1 saw too little (--show-passed)",
        ),
        (
            Report(steps=5, passed=[Sentence("a", "x")]),
            "nothing wrong was found in 5 steps; 1 check passed (--show-passed)",
        ),
    ],
)
def test_the_last_line_sums_it_up(report: Report, last: str) -> None:
    assert text.write(report).splitlines()[-1].startswith(f"trueloop doctor: {last}")


def test_what_passed_is_told_to_whoever_asks() -> None:
    report = Report(passed=[Sentence("overfitting", "it fell")], unseen=[Sentence("not-learning", "too few")], steps=9)
    assert "it fell" not in text.write(report)
    assert "too few" not in text.write(report)
    told = text.write(report, show_passed=True)
    assert "checked and found right:\n  overfitting: it fell\n\nnot seen:\n  not-learning: too few\n" in told
    assert "--show-passed" not in told


def test_levels_are_counted_in_words() -> None:
    findings = [finding(), finding(), Finding("a", 1, "note", "likely", "…"), Finding("b", 2, "warning", "likely", "…")]
    assert counted(Report(findings)) == "2 errors, 1 warning and 1 note"
    assert counted(Report()) == "nothing"


def test_json_has_what_was_promised() -> None:
    whole = json.loads(written(Report([finding()], steps=3, unseen=[Sentence(None, "x")], script={"exit": 0}), "json"))
    (one,) = whole["findings"]
    expected = {"name": "broadcast-loss", "code": 304, "level": "error", "certainty": "certain", "line": 4}
    assert {key: one[key] for key in expected} == expected
    assert one["file"] == str(Path.cwd() / "train.py")
    assert one["help"] == "`prediction.squeeze(1)`"
    assert one["evidence"] == ["the shapes are (8, 1) and (8,)", "the table is 8 × 8"]
    assert whole["unseen"] == [{"name": None, "text": "x"}]
    assert (whole["steps"], whole["script"], whole["complete"]) == (3, {"exit": 0}, True)


def test_github_escapes_what_its_commands_are_made_of(tmp_path: Path) -> None:
    file = str(tmp_path / "a,b:c.py")
    told = written(Report([finding(place=Place(file, 4), evidence=("100 %\nof it",))]), "github")
    assert told == (
        "::error file=a%2Cb%3Ac.py,line=4,title=broadcast-loss (304)::predictions meet targets"
        "%0Aevidence: 100 %25%0Aof it%0Ahelp: `prediction.squeeze(1)`\n"
    )
    note = Finding("a", 1, "note", "likely", "mind this")
    assert written(Report([note]), "github") == "::notice title=a (1)::mind this\n"


def test_sarif_has_the_form_of_its_standard() -> None:
    outside = finding(place=Place("/else where/train.py", 1), related=())
    unknown = Finding("of-a-plugin", 1, "note", "likely", "x")
    script = {"exit": 1, "error": "ValueError: x", "failed": True}
    report = Report([finding(), outside, unknown], script=script, unseen=[Sentence(None, "y")], steps=3)
    log = json.loads(written(report, "sarif"))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    assert run["tool"]["driver"]["name"] == "trueloop"
    (rule,) = run["tool"]["driver"]["rules"]
    assert rule["id"] == "broadcast-loss"
    assert rule["help"]["markdown"].startswith("# broadcast-loss (304)")
    first, second, third = run["results"]
    assert (first["ruleId"], first["ruleIndex"], first["level"]) == ("broadcast-loss", 0, "error")
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "train.py", "uriBaseId": "%SRCROOT%"}
    assert place["region"]["startLine"] == 4
    assert run["originalUriBaseIds"]["%SRCROOT%"]["uri"] == Path.cwd().as_uri() + "/"
    assert [one["message"]["text"] for one in first["relatedLocations"]] == ["made here", "the last layer"]
    assert second["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "file:///else%20where/train.py"}
    assert "ruleIndex" not in third
    assert "locations" not in third
    (invocation,) = run["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 1)


def paths(report: Report) -> tuple[str, str, str]:
    """The path that github gets, the one that sarif gets, and what the latter is relative to."""
    (run,) = json.loads(written(report, "sarif"))["runs"]
    artifact = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    given = written(report, "github").partition("file=")[2].partition(",")[0]
    return given, artifact["uri"], run["originalUriBaseIds"]["%SRCROOT%"]["uri"]


def test_hosts_get_paths_from_the_root_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "repo" / "sub" / "inner"
    inner.mkdir(parents=True)
    report = Report([finding(place=Place(str(inner / "train.py"), 1), related=())])

    monkeypatch.chdir(inner)
    assert paths(report) == ("train.py", "train.py", f"{inner.as_uri()}/")
    (tmp_path / "repo" / ".git").write_text("gitdir: elsewhere")  # of a worktree; a folder otherwise
    for folder in (inner, tmp_path):  # wherever one stands
        monkeypatch.chdir(folder)
        assert paths(report) == ("sub/inner/train.py", "sub/inner/train.py", f"{(tmp_path / 'repo').as_uri()}/")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert paths(report) == ("repo/sub/inner/train.py", "repo/sub/inner/train.py", f"{tmp_path.as_uri()}/")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "other"))
    assert paths(report)[0] == "sub/inner/train.py"
    monkeypatch.chdir(inner)
    assert " --> train.py:1" in text.write(report)  # people stand where they stand


def test_a_fingerprint_stays_when_lines_are_added_above(tmp_path: Path) -> None:
    def fingerprint(line: int) -> str:
        linecache.clearcache()
        log = json.loads(written(Report([finding(place=Place(str(tmp_path / "train.py"), line))]), "sarif"))
        value: str = log["runs"][0]["results"][0]["partialFingerprints"]["ruleAndSource/v1"]
        return value

    before = fingerprint(4)
    (tmp_path / "train.py").write_text("# new\n" + CODE)
    assert fingerprint(5) == before
    assert fingerprint(3) != before


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "text"])
def test_nothing_found_is_a_whole_file_too(form: Any) -> None:
    told = written(Report(steps=3), form)
    assert form == "github" or json.loads(told)


def test_what_a_rule_says_in_general_is_said_once() -> None:
    told = text.write(Report([finding(), finding(place=Place("train.py", 2), help="another way")]))
    assert told.count("the model learns to ignore its input") == 1
    assert told.count("= help:") == 2
