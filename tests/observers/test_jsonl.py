from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trueloop
from trueloop.doctor.findings import Finding
from trueloop.doctor.output import Report, written
from trueloop.errors import TrueloopError
from trueloop.events import EpochEnded, EvalEnded, Event, Found, RunEnded, RunStarted, Saved, SaveFailed, StepEnded
from trueloop.observers import Jsonl

Stepped = Callable[..., StepEnded]
Evaluated = Callable[..., EvalEnded]


def lines(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    if not path.exists():
        return []
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def record(path: Path, events: list[Event]) -> list[dict[str, Any]]:
    observer = Jsonl(path)
    for event in events:
        observer(event)
    observer.close()
    return lines(path)


def test_every_event_is_a_line_with_all_its_fields(
    tmp_path: Path, started: RunStarted, stepped: Stepped, evaluated: Evaluated
) -> None:
    events: list[Event] = [
        started,
        stepped(1, 0.5, grad_norm=2.0, terms={"kl": 0.25}),
        stepped(2, 0.25, skipped=True),
        evaluated(2, 0.75, accuracy=0.5),
        EpochEnded(0, 2, 0.375, 8, 1.5),
        Saved(2, Path("runs/x"), "every 2 steps"),
        SaveFailed(2, "the disk is full"),
        RunEnded(2, 1, "finished", 2.5),
    ]
    written = record(tmp_path / "events.jsonl", events)
    assert [line["event"] for line in written] == [type(event).__name__ for event in events]
    assert written[0]["plan"] == started.plan.lines()
    step = {"epoch": 0, "samples": 4, "lr": 0.1}
    assert without_time(written[1]) == step | {
        "event": "StepEnded",
        "step": 1,
        "loss": 0.5,
        "grad_norm": 2.0,
        "terms": {"kl": 0.25},
        "skipped": False,
    }
    assert without_time(written[2]) == step | {
        "event": "StepEnded",
        "step": 2,
        "loss": 0.25,
        "grad_norm": None,
        "terms": {},
        "skipped": True,
    }
    assert written[3]["metrics"] == {"loss": 0.75, "accuracy": 0.5}
    assert (written[5]["path"], written[5]["why"]) == ("runs/x", "every 2 steps")
    assert written[6]["reason"] == "the disk is full"
    assert written[7]["reason"] == "finished"
    assert all(set(line) - {"event", "time"} == set(type(e)._fields) for line, e in zip(written, events, strict=True))
    assert [line["time"] for line in written] == sorted(line["time"] for line in written)


def without_time(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "time"}


def test_a_float32_loss_is_written_with_its_exact_value(tmp_path: Path, stepped: Stepped) -> None:
    (line,) = record(tmp_path / "events.jsonl", [stepped(1, 0.1)])
    assert line["loss"] == float(torch.tensor(0.1))


@pytest.mark.parametrize(("value", "name"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_what_is_not_finite_is_null_and_named(
    tmp_path: Path, stepped: Stepped, evaluated: Evaluated, value: float, name: str
) -> None:
    step, norm, term, evaluation = record(
        tmp_path / "events.jsonl",
        [stepped(1, value), stepped(2, grad_norm=value), stepped(3, terms={"kl": value}), evaluated(3, value)],
    )
    assert (step["loss"], step["nonfinite"]) == (None, {"loss": name})
    assert (norm["grad_norm"], norm["loss"], norm["nonfinite"]) == (None, 0.5, {"grad_norm": name})
    assert (term["terms"], term["nonfinite"]) == ({"kl": None}, {"terms.kl": name})
    assert (evaluation["metrics"], evaluation["nonfinite"]) == ({"loss": None}, {"metrics.loss": name})


def test_steps_wait_for_256_of_them(tmp_path: Path, stepped: Stepped, clock: Any) -> None:
    path = tmp_path / "events.jsonl"
    observer = Jsonl(path, clock=clock)
    for step in range(1, 256):
        observer(stepped(step))
    assert lines(path) == []
    observer(stepped(256))
    assert [line["step"] for line in lines(path)] == list(range(1, 257))
    observer.close()


def test_steps_wait_no_longer_than_a_second(tmp_path: Path, stepped: Stepped, clock: Any) -> None:
    path = tmp_path / "events.jsonl"
    observer = Jsonl(path, clock=clock)
    observer(stepped(1))
    clock.now += 0.9
    observer(stepped(2))
    assert lines(path) == []
    clock.now += 0.2
    observer(stepped(3))
    assert [(line["step"], line["time"]) for line in lines(path)] == [(1, 1000.0), (2, 1000.9), (3, 1001.1)]
    observer(stepped(4))
    assert len(lines(path)) == 3
    observer.close()


def test_any_other_event_brings_the_steps_before_it(tmp_path: Path, stepped: Stepped, evaluated: Evaluated) -> None:
    path = tmp_path / "events.jsonl"
    observer = Jsonl(path)
    observer(stepped(1))
    observer(evaluated(1, 0.5))
    assert [line["event"] for line in lines(path)] == ["StepEnded", "EvalEnded"]
    observer.close()


def test_mixed_kinds_of_terms_are_read_one_by_one(tmp_path: Path, stepped: Stepped) -> None:
    event = stepped(1)._replace(terms={"a": torch.tensor([2.0]), "b": torch.tensor(3, dtype=torch.int64)})
    (line,) = record(tmp_path / "events.jsonl", [event])
    assert line["terms"] == {"a": 2.0, "b": 3.0}


def test_a_resumed_run_goes_on_in_its_record_past_a_torn_line(tmp_path: Path, stepped: Stepped) -> None:
    path = tmp_path / "events.jsonl"
    record(path, [stepped(1)])
    with path.open("a") as file:
        file.write('{"event": "Ste')
    observer = Jsonl(path)
    observer(stepped(2))
    observer.close()
    first, torn, second = path.read_text().splitlines()
    assert (json.loads(first)["step"], torn, json.loads(second)["step"]) == (1, '{"event": "Ste', 2)


def test_a_killed_run_keeps_its_record(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    code = f"""
import os, signal, torch
from trueloop.events import EpochEnded, StepEnded
from trueloop.observers.jsonl import Jsonl
record = Jsonl({str(path)!r})
record(StepEnded(1, 0, torch.tensor(0.5), 4, 0.1, None, {{}}, False))
record(EpochEnded(0, 1, 0.5, 4, 1.0))
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [line["event"] for line in lines(path)] == ["StepEnded", "EpochEnded"]


def test_a_full_disk_is_said_with_file_and_step(stepped: Stepped) -> None:
    observer = Jsonl("/dev/full")
    observer(stepped(7))
    with pytest.raises(TrueloopError, match=r"No space left on device.*step 7, /dev/full"):
        observer.close()
    observer.close()


def test_a_finding_is_written_as_the_command_writes_it(tmp_path: Path) -> None:
    finding = Finding("a", 1, "note", "likely", "``x`` is", ("``y`` too",), meaning="``z``", help="``step()``")
    (line,) = record(tmp_path / "events.jsonl", [Found(3, finding)])
    assert line["finding"]["message"] == "`x` is"
    assert [line["finding"]] == json.loads(written(Report([finding]), "json"))["findings"]
