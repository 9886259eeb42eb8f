"""What processes that torchrun has started leave for the first of them, which tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trueloop.doctor import ranks as module
from trueloop.doctor.children import Heard
from trueloop.doctor.findings import Finding, Level
from trueloop.doctor.ranks import Peer, Ranks, leave_word, not_heard, of_all, peers, ranks
from trueloop.doctor.script import Run, Script


def environment(folder: Path, rank: int) -> dict[str, str]:
    errors = folder / "attempt_0" / str(rank) / "error.json"
    errors.parent.mkdir(parents=True, exist_ok=True)
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_ERROR_FILE": str(errors),
    }


def both(folder: Path) -> tuple[Ranks, Ranks]:
    first, second = (ranks(environment(folder, rank)) for rank in (0, 1))
    assert first is not None
    assert second is not None
    return first, second


def ended(**how: object) -> Run:
    run = Run(Script("train.py"), exit=0)
    vars(run).update(how)
    return run


def finding(name: str, level: Level = "error") -> Finding:
    return Finding(name, 101, level, "certain", "a message")


def test_the_first_of_a_machine_tells(tmp_path: Path) -> None:
    first, second = both(tmp_path)
    assert (first.tells, second.tells) == (True, False)
    assert first.folder == second.folder
    assert first.here == (0, 1)


def test_a_process_that_torchrun_has_not_started_is_alone(tmp_path: Path) -> None:
    given = environment(tmp_path, 0)
    assert ranks(given | {"LOCAL_WORLD_SIZE": "1"}) is None
    assert ranks(given | {"TORCHELASTIC_ERROR_FILE": ""}) is None
    assert ranks({name: value for name, value in given.items() if name != "RANK"}) is None


def test_an_error_is_passed_on(tmp_path: Path) -> None:
    first, second = both(tmp_path)
    leave_word(second, ended(exit=1, failed=True, error="ValueError: mine"))
    found = peers(first, ended(), frozenset())
    assert found == {1: Peer(None, over=True, failed="ValueError: mine")}
    assert not_heard(found, ended()) == ["the script failed in process 1 (ValueError: mine)"]


def test_who_leaves_no_word_is_waited_for_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    first, second = both(tmp_path)
    assert not_heard(peers(first, ended(), frozenset()), ended()) == ["process 1 had not ended and has left no word"]
    leave_word(second, ended(exit=None))
    assert not peers(first, ended(), frozenset())[1].over


def test_what_was_not_asked_for_is_left_out(tmp_path: Path) -> None:
    first, second = both(tmp_path)
    second.folder.mkdir()
    heard = {"steps": 8, "backwards": 8, "passed": [], "unseen": [], "notes": [], "stopped": None}
    heard["findings"] = [finding("missing-zero-grad").as_dict(), finding("not-learning").as_dict()]
    (second.folder / "1.json").write_text(json.dumps({"over": True, "failed": None, "heard": heard}))
    told = peers(first, ended(), frozenset({"not-learning"}))[1].heard
    assert told is not None
    assert [one.name for one in told.findings] == ["not-learning"]


def test_a_note_must_come_from_all(tmp_path: Path) -> None:
    own, note = Ranks(0, (0, 1), tmp_path), finding("no-validation", "note")
    silent = {1: Peer(Heard(8, 8, ()), over=True, failed=None)}
    assert of_all([note], own, silent) == []
    alike = {1: Peer(Heard(8, 8, (note,)), over=True, failed=None)}
    assert [one.evidence for one in of_all([note], own, alike)] == [("seen in 2 of the 2 processes",)]
