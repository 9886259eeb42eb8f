"""One process of several fails, hangs or differs: it is named, once and at once; and what was saved on two goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from trueloop.cli.main import main
from trueloop.cli.processes import taken_from
from trueloop.errors import ArgumentError
from trueloop.parallel.alike import check_alike, check_weights, until_all_end
from trueloop.parallel.failing import is_of_the_network, tells
from trueloop.parallel.reduce import summed

MINE = '''
"""A recipe that process 1 breaks at its step 7, in the way that is asked for."""
import os, sys, time
import torch
from torch import nn
import trueloop as tl


def recipe(fault: str = "", wide: bool = False, timeout: float = 600.0, parallel: str = "ddp") -> tl.Recipe:
    torch.set_default_dtype(torch.float64 if wide else torch.float32)
    broken, own = os.environ.get("RANK") == ("0" if "the first" in fault else "1"), [0]
    fault = fault.removesuffix(" the first")
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(100, 8, generator=generator), torch.randint(0, 3, (100,), generator=generator)
    torch.manual_seed(5)
    parts = [] if wide else [nn.BatchNorm1d(16), nn.Dropout(0.2)]  # they depend on the processes
    model = nn.Sequential(nn.Linear(8, 16), *parts, nn.ReLU(), nn.Linear(16, 4 if fault == "model" and broken else 3))

    def forward(module, inputs):
        own[0] += module.training
        if not broken or not module.training or own[0] != 7:
            return
        match fault:
            case "forward": raise ValueError("broken in forward")
            case "exit": sys.exit(5)
            case "nan": return (inputs[0] * float("nan"),)
            case "loop":
                while True: pass
            case "stop": os.kill(os.getpid(), 19)
            case "kill": os.kill(os.getpid(), 9)

    def watch(event):
        if isinstance(event, tl.StepEnded):
            if broken and event.step == 7 and fault == "observer": raise KeyError("broken observer")
            if event.step == 7 and fault == "kill, launcher ends": end(broken)
            if broken and event.step == 7 and fault == "stopped by an observer": os.kill(os.getpid(), 19)
            drifts = "drift" in fault and event.step == (27 if "last" in fault else 6 if "by steps" in fault else 7)
            if broken and drifts: model[0].weight.data[0, 0] += 1e-6

    model.register_forward_pre_hook(forward)
    data, size = (x, y), 12
    if fault == "samples" and broken: data = (x[:90], y[:90])
    if fault == "fewer": data, size = Batches(x, y, 8 if broken else 9), None
    if fault == "other batches": data, size = Batches(x, y, 9, turns_at=4 if broken else 9), None
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.adamw(lr=0.01), average=tl.optim.ema(0.9),
                         clip_norm=0.5, doctor=False, parallel=parallel, process_timeout=timeout)
    return tl.Recipe(trainer, data, (x, y), epochs=3, batch_size=size, seed=1, observers=[watch])


def end(broken):
    """One process is killed, and torchrun's SIGTERM comes to the other while it is busy: not to save, but to end."""
    if broken: os.kill(os.getpid(), 9)
    time.sleep(1)
    os.kill(os.getpid(), 15)


class Batches:
    def __init__(self, x, y, number, turns_at=9): self.x, self.y, self.number, self.turns_at = x, y, number, turns_at
    def __iter__(self):
        for i in range(self.number):
            at = 10 * (i if i < self.turns_at else self.number - 1 - i + self.turns_at)
            yield self.x[at : at + 10], self.y[at : at + 10]
'''

SCRIPT = """
import sys, torch, mine
import trueloop as tl
out, fault, timeout, parallel = sys.argv[1:]
recipe = mine.recipe(fault=fault, timeout=float(timeout), parallel=parallel)
if "drift" not in fault:
    recipe.fit(out=out, progress=False)
else:  # without evaluations, in one long epoch: what is compared is compared for the save's sake
    saving = tl.Saving(every_steps=2 if "by steps" in fault else None, every_minutes=1e-9 if "clock" in fault else None,
                       keep_last=100)
    x, y = recipe.train
    data = (x.repeat(100, 1), y.repeat(100)) if "once an epoch" not in fault else (x, y)
    recipe.trainer.fit(data, steps=27, batch_size=12, seed=1, observers=recipe.observers, out=out, saving=saving,
                       progress=False)
"""


WAYS = """
import sys, torch, mine
from torch import nn
import trueloop as tl
way, timeout, parallel = sys.argv[1:]
recipe = mine.recipe(fault="loop" if way in ("train", "own") else "", timeout=float(timeout), parallel=parallel)
trainer, model = recipe.trainer, recipe.trainer.model
x, y = recipe.train

def hang_at_rest(module, inputs):
    if not module.training and torch.distributed.get_rank() == 1:
        while True: pass

if way == "train":
    for event in trainer.train(recipe.train, epochs=3, batch_size=12, seed=1): pass
elif way == "own":
    for x, y in trainer.batches(recipe.train, batch_size=12): trainer.update(nn.functional.cross_entropy(model(x), y))
elif way == "evaluating":  # where the other process goes on, to the next loop
    model.register_forward_pre_hook(hang_at_rest)
    for x, y in trainer.batches(recipe.train, batch_size=12): trainer.update(nn.functional.cross_entropy(model(x), y))
    for x, y in trainer.evaluating(recipe.val, batch_size=12): model(x)
    for x, y in trainer.batches(recipe.train, batch_size=12): trainer.update(nn.functional.cross_entropy(model(x), y))
elif way in ("evaluate", "predict"):
    model.register_forward_pre_hook(hang_at_rest)
    trainer.evaluate(recipe.val, batch_size=10) if way == "evaluate" else trainer.predict(x, batch_size=10)
else:
    rank = torch.distributed.get_rank
    def broken(event):
        if isinstance(event, tl.StepEnded) and (event.step, rank()) == (2, at): raise KeyError(word)
    for at, word in ((1, "first"), (0, "second")):
        try:
            trainer.fit(recipe.train, steps=5, batch_size=12, seed=1, progress=False, observers=[broken])
        except (KeyError, tl.errors.TrueloopError) as error:
            print(f"[{type(error).__name__} {error}]")
    trainer.fit(recipe.train, steps=5, batch_size=12, seed=1, progress=False)
    print("went on")
"""


class Ended(NamedTuple):
    """How each process has ended, and what it wrote."""

    codes: list[int]
    told: list[str]


@pytest.fixture
def broken(tmp_path: Path, environments: Callable[[int], list[Mapping[str, str]]]) -> Callable[..., Ended]:
    """Two processes that train in the folder ``run``, of which the second has a fault."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "ways.py").write_text(WAYS)

    def broken(
        fault: str, timeout: float = 600.0, parallel: str = "ddp", way: str = "", stopped: int | None = None
    ) -> Ended:
        arguments = ["ways.py", way] if way else ["script.py", str(tmp_path / "run"), fault]
        started = [
            subprocess.Popen(
                [sys.executable, *arguments, str(timeout), parallel],
                cwd=tmp_path,
                env={**environment, "TORCH_CPP_LOG_LEVEL": "FATAL"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for environment in environments(2)
        ]
        try:
            if stopped is not None:  # as the launcher does, when another one has ended
                started[1 - stopped].wait(timeout=120)
                started[stopped].kill()
            told = [process.communicate(timeout=120)[0] for process in started]
        finally:
            for process in started:
                process.kill()
                process.communicate()
        return Ended([process.returncode for process in started], told)

    return broken


Broken = Callable[..., Ended]


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "run" / "checkpoints").glob("step-*"))


# --- an error is told once, by the process that has met it ----------------------------------------------------------


ENGINES = pytest.mark.parametrize("parallel", ["ddp", "fsdp"])


@ENGINES
def test_an_exception_in_a_step_is_the_business_of_its_process(broken: Broken, tmp_path: Path, parallel: str) -> None:
    ended = broken("forward", parallel=parallel)
    assert ended.codes == [1, 1]
    assert ended.told[0] == ""  # it has nothing to say
    assert "ValueError: broken in forward" in ended.told[1]
    assert "in process 1 of 2" in ended.told[1]
    assert "process 1 has failed: ValueError: broken in forward" in (tmp_path / "run" / "run.json").read_text()
    assert saved_steps(tmp_path) == [0]  # what process 0 had in the middle of a step is not exact


@ENGINES
def test_an_exception_at_an_event_leaves_a_run_that_stands_whole(broken: Broken, tmp_path: Path, parallel: str) -> None:
    ended = broken("observer", parallel=parallel)
    assert ended.codes == [1, 1]
    assert ended.told[0] == ""
    assert "KeyError: 'broken observer'" in ended.told[1]
    assert saved_steps(tmp_path) == [0, 8], "the others learn of it after the step that follows"
    manifest = (tmp_path / "run" / "checkpoints" / "step-00000008" / "manifest.json").read_text()
    assert '"exact": null' in manifest


@ENGINES
def test_nan_on_one_process_is_its_own_to_explain(broken: Broken, parallel: str) -> None:
    ended = broken("nan", parallel=parallel)
    assert ended.codes == [1, 1]
    assert ended.told[0] == ""
    assert "NonFiniteError" in ended.told[1]
    assert "(process 1 of 2)" in ended.told[1]


@pytest.mark.slow
def test_a_process_that_leaves_is_said(broken: Broken) -> None:
    ended = broken("exit")
    assert ended.codes == [1, 5]
    assert ended.told[0] == ""
    assert "process 1 of 2 has left by SystemExit: 5" in ended.told[1]


@ENGINES
def test_a_process_that_was_killed_ends_the_others(broken: Broken, tmp_path: Path, parallel: str) -> None:
    ended = broken("kill", parallel=parallel)
    assert ended.codes == [1, -9]
    assert "which is gone" in ended.told[0]
    assert saved_steps(tmp_path) == [0]


def test_the_launchers_sigterm_after_a_kill_is_no_request(broken: Broken, tmp_path: Path) -> None:
    ended = broken("kill, launcher ends")
    assert ended.codes == [1, -9], ended.told
    assert "which is gone" in ended.told[0]
    assert '"failed"' in (tmp_path / "run" / "run.json").read_text()


# --- a process that hangs, or is not like the others ----------------------------------------------------------------


@ENGINES
def test_a_process_that_hangs_is_named_with_its_line(broken: Broken, parallel: str) -> None:
    ended = broken("loop", parallel=parallel, timeout=2)
    assert ended.codes == [1, 1]
    assert "process 1 of 2 hangs after step 6, at forward (" in ended.told[0]
    assert "mine.py:" in ended.told[0]
    assert "all its threads" in ended.told[1]
    assert "mine.py" in ended.told[1]


@pytest.mark.parametrize("way", ["train", "own", "evaluating", "evaluate", "predict"])
def test_a_process_that_hangs_is_named_whatever_the_loop(broken: Broken, way: str) -> None:
    ended = broken("", timeout=4, way=way)
    assert ended.codes == [1, 1]
    assert "process 1 of 2 hangs " in ended.told[0]
    assert ("after step 6, at forward (" if way in ("train", "own") else "at hang_at_rest (") in ended.told[0]
    assert "all its threads" in ended.told[1]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_after_one_that_failed_tells_its_own_error_and_ends_well(broken: Broken, parallel: str) -> None:
    ended = broken("", way="again", parallel=parallel)
    first, second = ended.told
    assert ended.codes == [0, 0], ended.told
    assert "[PeerError process 1 has failed: KeyError: 'first']" in first
    assert "[KeyError 'second']" in first
    assert "[KeyError 'first']" in second
    assert "[PeerError process 0 has failed: KeyError: 'second']" in second
    assert first.strip().endswith("went on")


@pytest.mark.slow
@ENGINES
def test_a_stopped_process_is_named_and_ended(broken: Broken, tmp_path: Path, parallel: str) -> None:
    ended = broken("stop", timeout=2, parallel=parallel)
    assert ended.codes == [1, -9]
    assert "process 1 of 2 does not answer" in ended.told[0]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_a_process_that_is_gone_at_an_event_ends_a_run_in_parts_as_well(broken: Broken, tmp_path: Path) -> None:
    """There rank 0 tells the others what to do."""
    ended = broken("stopped by an observer", timeout=2, parallel="fsdp")
    assert ended.codes == [1, -9]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_the_first_process_says_in_the_record_that_it_hangs(broken: Broken, tmp_path: Path) -> None:
    ended = broken("loop the first", timeout=2)
    assert ended.codes == [1, 1]
    assert "process 0 of 2 hangs after step 6, at forward (" in ended.told[1]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["reason"].startswith("process 0 of 2 hangs after step 6, at forward (")


@pytest.mark.slow
def test_a_stopped_process_is_named_also_where_it_keeps_the_word_of_all(broken: Broken) -> None:
    ended = broken("stop the first", timeout=2, stopped=0)
    assert ended.codes[1] == 1
    assert "process 0, which keeps the word of all, does not answer" in ended.told[1]


@pytest.mark.parametrize(
    ("fault", "found", "saved"),
    [
        ("drift, compared once an epoch", 9, [0]),
        ("drift, saved by steps", 6, [0, 2, 4]),  # at the event after which it would be saved
        ("drift, saved by the clock", None, None),  # when it is due is the machine's to say
        ("drift in the last step", 27, [0]),
    ],
)
def test_weights_that_drift_apart_are_found_and_not_saved(
    broken: Broken, tmp_path: Path, fault: str, found: int | None, saved: list[int] | None
) -> None:
    ended = broken(fault)
    told = "".join(ended.told)
    assert ended.codes == [1, 1]
    assert told.count("the weights have drifted apart: processes 0 and 1 differ, first in 0.weight") == 1
    assert found is None or f"(step {found})" in told
    steps = saved_steps(tmp_path)
    assert max(steps) < 7
    assert steps == saved if saved is not None else len(steps) > 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], "drifted apart" in record["reason"]) == ("failed", True)


def test_other_data_on_one_process_is_found_before_the_first_step(broken: Broken) -> None:
    ended = broken("samples")
    told = "".join(ended.told)
    assert ended.codes == [1, 1]
    assert told.count("the data's number of samples is 100 on process 0; 90 on process 1") == 1


@pytest.mark.slow
def test_another_model_on_one_process_is_found_before_the_first_step(broken: Broken) -> None:
    told = "".join(broken("model").told)
    assert (
        told.count("the weight 4.weight is torch.float32 (3, 16) on process 0; torch.float32 (4, 16) on process") == 1
    )


def test_fewer_batches_on_one_process_are_found(broken: Broken) -> None:
    ended = broken("fewer")
    told = "".join(ended.told)
    assert ended.codes == [1, 1]
    assert "process 1 is at the end of its batches" in told


def test_other_batches_in_the_course_of_an_epoch_are_found(broken: Broken, tmp_path: Path) -> None:
    ended = broken("other batches")
    told = "".join(ended.told)
    assert ended.codes == [1, 1]
    assert told.count("the batches have drifted apart: processes 0 and 1 differ") == 1
    assert saved_steps(tmp_path) == [0]


def test_a_process_alone_compares_itself_with_nobody() -> None:
    assert summed([1, 2], at="anywhere") == [1, 2]
    assert list(until_all_end(iter("ab"))) == ["a", "b"]
    check_alike({"samples": 3}, nn.Linear(1, 1))
    check_weights(nn.Linear(1, 1), step=3)
    assert tells(ValueError("mine"))


@pytest.mark.parametrize(
    "text",
    [
        "[…/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 4000ms for recv",
        "Connection reset by peer",
        "Application timeout caused pair closure",
        "NCCL communicator was aborted",
    ],
)
def test_an_error_of_the_network_is_known_by_its_text(text: str) -> None:
    assert is_of_the_network(text)


# --- saved on two processes, gone on with on another number of them -------------------------------------------------

GOES_ON = """
import contextlib, os, signal, sys, torch, mine, trueloop as tl
saved, out, asked_after = sys.argv[1], sys.argv[2], int(sys.argv[3])
recipe = mine.recipe(wide=True)
losses = {}
def note(event):
    if isinstance(event, tl.StepEnded): losses[event.step] = float(event.loss)
    if isinstance(event, tl.StepEnded) and event.step == asked_after and os.environ.get("RANK") == "1":
        signal.raise_signal(signal.SIGTERM)
with contextlib.suppress(tl.errors.Preempted):
    recipe.trainer.fit(recipe.train, recipe.val, steps=24, batch_size=12, seed=1, out=out, resume="auto",
                       observers=[note], progress=False)
if os.environ.get("RANK", "0") == "0":
    torch.save((torch.cat([p.detach().flatten() for p in recipe.trainer.model.parameters()]),
                torch.cat([p.detach().flatten() for p in recipe.trainer.averaged.parameters()]), losses), saved)
"""


@pytest.fixture(scope="module")
def curves(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Trains on so many processes, each run once; it may have been begun already, in its folder."""
    folder = tmp_path_factory.mktemp("goes on")
    (folder / "mine.py").write_text(MINE)
    script = f"import sys; sys.path.insert(0, {str(folder)!r})" + GOES_ON

    @cache
    def curves(run: str, processes: int) -> Any:
        if run.startswith("from two") and not (folder / run).exists():
            if not (folder / "two").exists():
                launch(
                    script, 2, str(folder / "two"), "13"
                )  # SIGTERM in the middle of the second epoch, to process 1 alone
            shutil.copytree(folder / "two", folder / run)
        return launch(script, processes, str(folder / run), "0")

    return curves


@pytest.mark.parametrize("processes", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_saved_on_two_processes_goes_on_along_its_curve(curves: Callable[..., Any], processes: int) -> None:
    weights, average, losses = curves(f"from two on {processes}", processes)
    whole, whole_average, whole_losses = curves("unbroken", 2)
    assert list(losses) == list(range(15, 25))
    most = 0.0 if processes == 2 else 1e-10  # the bits, for the same number
    torch.testing.assert_close(weights, whole, rtol=0.0, atol=most)
    torch.testing.assert_close(average, whole_average, rtol=0.0, atol=most)
    for step, loss in losses.items():
        assert abs(loss - whole_losses[step]) <= most


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_launcher_takes_its_flags_and_leaves_the_others() -> None:
    flags, taken = taken_from(["--processes=3", "--lr", "0.1", "--restarts", "2"])
    assert flags == ["--lr", "0.1"]
    assert taken == {"processes": 3, "restarts": 2}
    with pytest.raises(ArgumentError, match="expected --processes of at least 1, got 0"):
        taken_from(["--processes", "0"])


def test_restarts_of_torchrun_want_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert main(["train", "mine.py:recipe"]) == 2
    assert "--out" in capsys.readouterr().err
