"""The verbs about checkpoints: ``checkpoints``, ``verify``, ``export``, ``import``."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model
from torch import nn

import trueloop
from trueloop.checkpoint import retention, store
from trueloop.checkpoint.encode import pack
from trueloop.checkpoint.weights import load_weights, save_weights

Command = Callable[..., Any]


def model_of(step: int) -> nn.Module:
    """A model whose weights tell the step."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    for parameter in model.parameters():
        parameter.data.fill_(step)
    return model


def save(run: Path, step: int, *, metrics: Mapping[str, float] | None = None, exact: str | None = None) -> Path:
    model = model_of(step).state_dict()
    average = {"n_averaged": torch.tensor(step), **{f"module.{name}": tensor + 0.5 for name, tensor in model.items()}}
    packed = {
        name: pack(tree, lambda _, tensor: tensor.clone())
        for name, tree in {"model": dict(model), "optimizer": {}, "state": {"averaged": average}}.items()
    }
    snapshot = store.Snapshot(
        step=step,
        epoch=step // 10,
        why="every 10 steps",
        metrics=metrics or {},
        exact=exact,
        tree={name: tree for name, (tree, _) in packed.items()},
        tensors={f"{name}.safetensors": tensors for name, (_, tensors) in packed.items() if tensors},
    )
    return store.write(run / "checkpoints", snapshot)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints, the one in the middle the best."""
    folder = tmp_path / "run"
    folder.mkdir()
    for step, loss in ((10, 0.5), (20, 0.25), (30, math.nan)):
        save(folder, step, metrics={"loss": loss, "accuracy": step / 100})
    return folder


def damage(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(bytes(data))


def steps_in(file: Path) -> float:
    model = model_of(0)
    load_model(model, file)
    return next(model.parameters())[0, 0].item()


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_the_list(command: Command, run: Path) -> None:
    ended = command("checkpoints", str(run))
    assert ended.code == 0, ended.err
    head, first, second, third = (line.split() for line in ended.out.splitlines())
    assert head == ["step", "epoch", "saved", "size", "loss", "accuracy", "why"]
    assert [row[0] for row in (first, second, third)] == ["10", "20", "30"]
    assert first[1] == "1"
    assert first[6:] == ["0.5", "0.1", "every", "10", "steps"]
    assert second[-2:] == ["best", "loss"]
    assert third[-1] == "last"
    assert third[6] == "nan"


def test_the_best_by_another_metric(command: Command, run: Path) -> None:
    best = {
        mode: best_of(command("checkpoints", str(run), "--best", "accuracy", "--mode", mode, "--json"))
        for mode in ("min", "max")
    }
    assert best == {"min": [10], "max": [30]}
    assert (
        command("checkpoints", str(run), "--best", "accuracy", "--mode", "max")
        .out.rstrip()
        .endswith("best accuracy, last")
    )
    ended = command("checkpoints", str(run), "--best", "accuracy")
    assert ended.code == 2
    assert "is more accuracy better, or less?" in ended.error


def test_the_best_as_the_run_itself_says_it(command: Command, run: Path) -> None:
    (run / "run.json").write_text(json.dumps({"settings": {"saving": {"best": "accuracy", "mode": "min"}}}))
    assert best_of(command("checkpoints", str(run), "--json")) == [10]


def best_of(ended: Any) -> list[int]:
    return [entry["step"] for entry in json.loads(ended.out)["checkpoints"] if entry["best"]]


def test_json(command: Command, run: Path) -> None:
    found = json.loads(command("checkpoints", str(run), "--json").out)
    assert found["set_aside"] == []
    assert [(entry["step"], entry["best"], entry["last"]) for entry in found["checkpoints"]] == [
        (10, False, False),
        (20, True, False),
        (30, False, True),
    ]
    newest = found["checkpoints"][-1]
    assert newest["metrics"] == {"loss": None, "accuracy": 0.3}
    assert newest["path"] == str(run / "checkpoints" / "step-00000030")
    assert newest["bytes"] == sum(file.stat().st_size for file in Path(newest["path"]).iterdir())
    assert (newest["problem"], newest["exact"], newest["why"], newest["epoch"]) == (None, None, "every 10 steps", 3)


def test_what_is_wrong_is_named(command: Command, run: Path) -> None:
    folder = run / "checkpoints"
    (folder / "step-00000030" / "state.json").unlink()
    (folder / "step-00000020" / "manifest.json").write_text("{}")
    retention.set_aside(folder / "step-00000010", "abandoned")
    save(run, 40, exact="your sampler keeps no state")
    out = command("checkpoints", str(run)).out
    assert "step-00000030 is damaged: state.json is missing" in out
    assert "step-00000020 is damaged: manifest.json" in out
    assert "abandoned-step-00000010 was set aside, and is not resumed from: abandoned" in out
    assert "step-00000040 does not resume exactly: your sampler keeps no state" in out
    found = json.loads(command("checkpoints", str(run), "--json").out)
    assert found["set_aside"] == ["abandoned-step-00000010"]
    assert [entry["problem"] is None for entry in found["checkpoints"]] == [False, False, True]


@pytest.mark.parametrize("verb", ["checkpoints", "verify", "export"])
def test_no_run_and_a_run_without_checkpoints(command: Command, tmp_path: Path, verb: str) -> None:
    ended = command(verb, "nowhere")
    assert ended.code == 2
    assert "expected the folder of a run, got 'nowhere'" in ended.error
    ended = command(verb, str(tmp_path))
    assert ended.code == 2
    assert "a run with checkpoints" in ended.error


def test_an_empty_folder_of_checkpoints(command: Command, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    ended = command("checkpoints", str(tmp_path))
    assert (ended.code, ended.out) == (0, f"no checkpoints in {tmp_path / 'checkpoints'}\n")
    assert command("verify", str(tmp_path)).code == 2
    assert command("export", str(tmp_path)).code == 2


# --- verify ---------------------------------------------------------------------------------------------------------


def test_verify(command: Command, run: Path) -> None:
    ended = command("verify", str(run))
    assert ended.code == 0
    *lines, last = ended.out.splitlines()
    assert [line.split()[:2] for line in lines] == [[f"step-000000{step}", "whole,"] for step in (10, 20, 30)]
    assert last.endswith("every byte is as it was written")


def test_verify_finds_one_bit(command: Command, run: Path) -> None:
    damage(run / "checkpoints" / "step-00000020")
    ended = command("verify", str(run))
    assert ended.code == 1
    first, second, _, last = ended.out.splitlines()
    assert "whole" in first
    assert second.startswith("step-00000020  DAMAGED: model.safetensors: ")
    assert last.endswith("1 damaged")


def test_verify_of_one_checkpoint(command: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(run / "checkpoints" / "step-00000020")
    assert command("verify", str(run / "checkpoints" / "step-00000010")).code == 0
    assert command("verify", str(run / "checkpoints" / "step-00000020")).code == 1
    monkeypatch.chdir(run / "checkpoints" / "step-00000020")
    assert command("verify", ".").code == 1
    monkeypatch.chdir(run / "checkpoints")
    assert command("verify", ".").code == 1


def test_verify_names_what_was_not_written_with_a_checkpoint(command: Command, run: Path) -> None:
    path = run / "checkpoints" / "step-00000020"
    before = command("verify", str(run)).out.splitlines()
    (path / "notes.txt").write_text("mine")
    (path / "theirs").mkdir()
    (path / "nowhere").symlink_to("gone")
    ended = command("verify", str(run))
    assert ended.code == 0, "what was written is as it was"
    lines = ended.out.splitlines()
    warning = f"{path.name}  warning: also in its folder, and not known to manifest.json: notes.txt, nowhere, theirs"
    assert lines == [*before[:2], warning, *before[2:]]
    damage(path)
    ended = command("verify", str(path))
    assert (ended.code, "DAMAGED: model.safetensors" in ended.out) == (1, True)


# --- export ---------------------------------------------------------------------------------------------------------


def test_export_of_the_newest(command: Command, run: Path, tmp_path: Path) -> None:
    ended = command("export", str(run))
    assert ended.code == 0, ended.err
    assert ended.out.startswith("the weights of step 30: 4 tensors, 17 numbers, ")
    assert steps_in(tmp_path / "model.safetensors") == 30
    assert load_weights(model_of(0), tmp_path / "model.safetensors") == []


def test_export_of_a_step_and_of_a_checkpoint(command: Command, run: Path, tmp_path: Path) -> None:
    assert command("export", str(run), "--step", "10", "--output", "new/ten.safetensors").code == 0
    assert steps_in(tmp_path / "new" / "ten.safetensors") == 10
    assert command("export", str(run / "checkpoints" / "step-00000020"), "--output", "b.safetensors").code == 0
    assert steps_in(tmp_path / "b.safetensors") == 20
    ended = command("export", str(run), "--step", "15", "--output", "c.safetensors")
    assert ended.code == 2
    assert all(step in ended.error for step in ("15", "10", "20", "30"))
    assert (
        command("export", str(run / "checkpoints/step-00000020"), "--step", "3", "--output", "c.safetensors").code == 2
    )


def test_export_passes_over_what_is_damaged(command: Command, run: Path, tmp_path: Path) -> None:
    damage(run / "checkpoints" / "step-00000030")
    ended = command("export", str(run))
    assert ended.code == 0
    assert "step-00000030" in ended.out.splitlines()[0]
    assert steps_in(tmp_path / "model.safetensors") == 20
    damage(run / "checkpoints" / "step-00000020")
    ended = command("export", str(run / "checkpoints" / "step-00000020"), "--overwrite")
    assert ended.code == 2
    assert "model.safetensors" in ended.error
    assert steps_in(tmp_path / "model.safetensors") == 20


def test_export_of_the_average(command: Command, run: Path, tmp_path: Path) -> None:
    assert command("export", str(run), "--average").out.startswith("the averaged weights of step 30: ")
    assert steps_in(tmp_path / "model.safetensors") == 30.5


def test_export_does_not_overwrite_unasked(command: Command, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("mine")
    ended = command("export", str(run))
    assert ended.code == 2
    assert "is there already" in ended.error
    assert file.read_text() == "mine"
    assert command("export", str(run), "--overwrite").code == 0
    assert steps_in(file) == 30


@pytest.mark.parametrize("verb", ["export", "import"])
def test_the_output_is_a_file_of_safetensors(command: Command, run: Path, verb: str) -> None:
    assert "as a file .safetensors" in command(verb, str(run), "--output", "a.pt").error
    Path("folder.safetensors").mkdir()
    assert "got a folder" in command(verb, str(run), "--output", "folder.safetensors").error
    Path("file").touch()
    torch.save(model_of(1).state_dict(), "theirs.pt")
    given = str(run) if verb == "export" else "theirs.pt"
    assert "cannot be written: File exists" in command(verb, given, "--output", "file/a.safetensors").error


def test_a_run_whose_weights_are_there_is_told_so(command: Command, tmp_path: Path) -> None:
    save_weights(model_of(3), tmp_path / "model.safetensors")
    ended = command("export", str(tmp_path), "--output", "b.safetensors")
    assert ended.code == 2
    assert f"the weights that the run ended with are in {tmp_path / 'model.safetensors'}" in ended.err


# --- import ---------------------------------------------------------------------------------------------------------


def test_import(command: Command, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": model_of(7).state_dict()}, "theirs.pt")
    ended = command("import", "theirs.pt")
    assert ended.code == 0, ended.err
    first, second = ended.out.splitlines()
    assert first == "the weights are those under 'state_dict'; also in the file, and not read: 'epoch' (int)"
    assert second.startswith("the weights of theirs.pt: 4 tensors, 17 numbers, ")
    assert steps_in(tmp_path / "model.safetensors") == 7


def test_import_of_tied_weights(command: Command) -> None:
    weight = torch.ones(2)
    torch.save({"head": weight, "embedding": weight}, "theirs.pt")
    assert command("import", "theirs.pt").out.splitlines()[0] == "head is embedding (tied weights), and is written once"


def test_import_of_what_safetensors_does_not_know(command: Command) -> None:
    torch.save({"w": torch.ones(2, dtype=torch.complex128)}, "theirs.pt")
    ended = command("import", "theirs.pt")
    assert ended.code == 2
    assert "w is complex128" in ended.error
    assert not Path("model.safetensors").exists()


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("canary"),))


def test_import_runs_nothing(command: Command) -> None:
    torch.save({"state_dict": Evil()}, "theirs.pt")
    ended = command("import", "theirs.pt")
    assert ended.code == 2
    assert "holds more than weights" in ended.error
    assert not Path("canary").exists()
    assert not Path("model.safetensors").exists()


# --- a real process -------------------------------------------------------------------------------------------------


def test_a_real_process_lists_and_verifies_without_torch(run: Path) -> None:
    damage(run / "checkpoints" / "step-00000020")
    code = (
        "import sys; from trueloop.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    for verb, expected in (("checkpoints", 0), ("verify", 1)):
        ended = subprocess.run(
            [sys.executable, "-c", code, verb, str(run)], env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == expected, ended.stderr
        assert ended.stderr == ""
        assert "30" in ended.stdout
