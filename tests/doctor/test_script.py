"""A script under the doctor is the script: real processes, beside those of plain Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import trueloop

SRC = str(Path(trueloop.__file__).parents[1])
PYTHON = (sys.executable,)
DOCTOR = (sys.executable, "-m", "trueloop", "doctor")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": SRC, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def start(folder: Path, *command: str) -> Ended:
    ended = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return file


def doctored(folder: Path, text: str, *flags: str, arguments: tuple[str, ...] = ()) -> tuple[Ended, dict[str, Any]]:
    """The script's end, and the report."""
    write(folder / "train.py", text)
    ended = start(folder, *DOCTOR, "--format=json", "--output=report.json", *flags, "train.py", *arguments)
    return ended, json.loads((folder / "report.json").read_text())


def names(report: dict[str, Any], level: str = "error") -> list[str]:
    return [finding["name"] for finding in report["findings"] if finding["level"] == level]


MISTAKE = """
    import torch
    model = torch.nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.001)
    for i in range(8):
        torch.nn.functional.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
        opt.step()
"""

AS_PYTHON = {
    "what it knows of itself": """
        'its docstring'
        import sys
        own = {k: str(v) for k, v in globals().items() if k.startswith("__") and k != "__loader__"}
        print(sys.argv, sys.path[0], type(__loader__).__name__, sorted(own.items()))
        assert sys.modules["__main__"].__dict__ is globals()
    """,
    "an error, with what it came of": """
        def inner():
            try:
                {}["key"]
            except KeyError as error:
                raise ValueError("of mine") from error
        inner()
    """,
    "an error while another is handled": """
        try:
            1 / 0
        except ZeroDivisionError:
            import nowhere_to_be_found
    """,
    "not Python": "x = (\n",
    "another encoding": "# -*- coding: latin-1 -*-\nprint('a')\n",
    "exit with a code": "import sys; sys.exit(3)",
    "exit with a word": "import sys; print('out'); sys.exit('in words')",
    "exit with nothing": "raise SystemExit",
    "interrupted": "raise KeyboardInterrupt",
    "what runs at exit": """
        import atexit, pickle
        class Thing: ...
        atexit.register(lambda: print("at exit", pickle.loads(pickle.dumps(Thing())).__class__, __name__))
        raise RuntimeError("then this")
    """,
    "os._exit": "import os, sys; print('lost'); sys.stderr.write('kept'); os._exit(5)",
    "a hook for errors of its own": """
        import sys
        sys.excepthook = lambda kind, error, trail: print("hooked", kind.__name__, trail.tb_frame.f_code.co_filename)
        raise ValueError
    """,
    "a fork that falls off the end": """
        import os, sys
        child = os.fork()
        if child:
            print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        else:
            sys.exit(7)
    """,
    "a warning": "import warnings; warnings.warn('mind this')",
    "a folder's neighbour": "import neighbour; print(neighbour.here)",
}


@pytest.mark.parametrize("text", AS_PYTHON.values(), ids=[title.replace(" ", "-") for title in AS_PYTHON])
def test_a_script_does_what_it_does_without_the_doctor(tmp_path: Path, text: str) -> None:
    write(tmp_path / "here/train.py", text)
    write(tmp_path / "here/neighbour.py", "here = __file__")
    plain = start(tmp_path, *PYTHON, "here/train.py", "--lr", "1")
    heard = start(tmp_path, *DOCTOR, "here/train.py", "--lr", "1")
    assert heard.out == plain.out
    assert heard.err.startswith(plain.err)
    assert "trueloop doctor: " in heard.err.removeprefix(plain.err)
    expected = 130 if plain.code in (130, -signal.SIGINT) else 2 * (plain.code != 0)
    assert heard.code == expected


def test_a_module_is_run_as_python_m_does(tmp_path: Path) -> None:
    about = "import sys; print(sys.argv, sys.path[0], __name__, __package__, __spec__.name, __file__)\n"
    write(tmp_path / "package/__init__.py", "")
    write(tmp_path / "package/train.py", about + "from package import data")
    write(tmp_path / "package/data.py", "print(__name__)")
    write(tmp_path / "package/__main__.py", about)
    for module in ("package.train", "package"):
        plain = start(tmp_path, *PYTHON, "-m", module, "-m", "--format", "x")
        heard = start(tmp_path, *DOCTOR, "-m", module, "-m", "--format", "x")
        assert (plain.code, heard.code) == (0, 0)
        assert heard.out == plain.out


def test_what_is_no_script_is_an_error_of_ours(tmp_path: Path) -> None:
    ended = start(tmp_path, *DOCTOR, "nowhere.py")
    assert (ended.code, ended.out) == (2, "")
    assert (
        ended.err == "error: expected a script to run, found no such file; for a module, write -m NAME (nowhere.py)\n"
    )
    ended = start(tmp_path, *DOCTOR, "-m", "nowhere.at_all")
    assert ended.code == 2
    assert "expected a module to run, found none that is called 'nowhere.at_all'" in ended.err


def test_torch_is_imported_when_the_script_does_and_heard_from_then_on(tmp_path: Path) -> None:
    ended, report = doctored(
        tmp_path,
        """
        import sys
        print("torch" in sys.modules, "numpy" in sys.modules)
        import torch
        from torch.nn.functional import mse_loss as loss  # a name of its own, taken before the first step
        model = torch.nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.001)
        for i in range(8):
            opt.zero_grad()
            loss(model(torch.randn(8, 4)), torch.randn(8)).backward()
            opt.step()
        """,
    )
    assert ended.code == 1
    assert ended.out == "False False\n"
    assert names(report) == ["broadcast-loss"]
    assert "train.py:9: UserWarning: Using a target size" in ended.err, "the warning names the script's line, not ours"
    assert report["steps"] == 8
    assert report["script"] == {
        "name": "train.py",
        "arguments": [],
        "exit": 0,
        "error": None,
        "failed": False,
        "ended": None,
    }


def test_our_frames_are_not_in_a_traceback_through_torch(tmp_path: Path) -> None:
    write(tmp_path / "train.py", MISTAKE + "    torch.ones(1).backward()\n")
    plain, heard = start(tmp_path, *PYTHON, "train.py"), start(tmp_path, *DOCTOR, "train.py")
    assert (plain.code, heard.code) == (1, 2)
    assert "Traceback" in plain.err
    assert heard.err.startswith(plain.err)
    told = heard.err.removeprefix(plain.err)
    assert told.startswith("error[missing-zero-grad] (101): ")
    assert "the script failed (RuntimeError: element 0 of tensors does not require grad" in told


@pytest.mark.parametrize("flag", ["--max-steps=5", "--max-seconds=0.000001"])
def test_a_script_is_ended_early_in_good_order(tmp_path: Path, flag: str) -> None:
    ended, report = doctored(
        tmp_path,
        """
        import atexit, torch
        atexit.register(print, "at exit")
        model = torch.nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.001)
        steps = 0
        try:
            while True:
                try:
                    model(torch.randn(8, 4)).pow(2).mean().backward()
                    opt.step()
                except Exception:
                    print("never")
        finally:
            print("finally")
        """,
        flag,
    )
    assert ended.out == "finally\nat exit\n"
    assert ended.code == ("max-steps" in flag), "as if it had ended by itself: the finding decides"
    assert report["steps"] == (5 if "max-steps" in flag else 1)
    assert flag.partition("=")[0] in report["script"]["ended"]
    assert report["script"]["exit"] == 0


def test_a_process_that_is_asked_to_end_tells_what_was_found(tmp_path: Path) -> None:
    write(tmp_path / "train.py", MISTAKE + "    print('ready', flush=True)\n    while True: pass\n")
    process = subprocess.Popen(
        [*DOCTOR, "train.py"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.startswith("error[missing-zero-grad]")
    assert "it was ended by SIGTERM" in err


def test_a_process_that_is_killed_leaves_what_was_found_so_far(tmp_path: Path) -> None:
    write(tmp_path / "train.py", MISTAKE + "    import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n")
    ended = start(tmp_path, *DOCTOR, "--format=json", "--output=report.json", "train.py")
    assert ended.code == -signal.SIGKILL
    report = json.loads((tmp_path / "report.json").read_text())
    assert names(report) == ["missing-zero-grad"]
    assert not report["complete"]
    assert report["script"]["exit"] is None


def test_leaving_at_once_tells_what_was_found(tmp_path: Path) -> None:
    ended, report = doctored(tmp_path, MISTAKE + "    import os; os._exit(0)\n")
    assert ended.code == 1
    assert names(report) == ["missing-zero-grad"]
    assert report["script"]["ended"] == "it left by os._exit(0)"


WORKERS = """
    import multiprocessing, sys
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Rows(Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, i):
            return torch.full((4,), float(i)), torch.tensor([float(i)])

    def own(queue):
        queue.put(__name__)

    if __name__ == "__main__":
        for method in ("fork", "spawn", "forkserver"):
            loader = DataLoader(Rows(), batch_size=8, num_workers=2, multiprocessing_context=method)
            print(method, sum(float(x.sum()) for x, y in loader))
        queue = multiprocessing.get_context("spawn").Queue()
        child = multiprocessing.get_context("spawn").Process(target=own, args=(queue,))
        child.start(); print(queue.get()); child.join(); print(child.exitcode)
        sleeper = multiprocessing.get_context("fork").Process(target=__import__("time").sleep, args=(60,))
        sleeper.start(); sleeper.terminate(); sleeper.join(); print(sleeper.exitcode)
"""


def test_workers_and_processes_of_its_own_work(tmp_path: Path) -> None:
    write(tmp_path / "train.py", WORKERS)
    plain = start(tmp_path, *PYTHON, "train.py")
    heard, report = doctored(tmp_path, WORKERS)
    assert (plain.code, heard.code) == (0, 0)
    assert heard.out == plain.out
    assert heard.err.count("written to") == 1
    sentences = [one["text"] for one in report["unseen"] if one["name"] is None]
    assert sentences == ["the script trained nothing: there was no backward and no optimizer step"]


def test_a_forked_process_dies_of_a_signal_that_comes_at_once(tmp_path: Path) -> None:
    ended, _ = doctored(
        tmp_path,
        """
        import os, signal, time, torch
        ends = set()
        for _ in range(100):
            child = os.fork()
            if child == 0:
                time.sleep(1)
                os._exit(3)
            os.kill(child, signal.SIGTERM)
            ends.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(ends)
        """,
    )
    assert ended.out == "{-15}\n"


def test_compiled_code_and_functions_that_the_script_replaces_are_told(tmp_path: Path) -> None:
    _, report = doctored(
        tmp_path,
        """
        import torch
        model = torch.nn.Linear(2, 1)
        compiled = torch.compile(model, backend="eager")
        original = torch.nn.functional.mse_loss
        def mine(*args, **kwargs):
            return original(*args, **kwargs)
        torch.nn.functional.mse_loss = mine
        torch.nn.MSELoss()(model(torch.ones(3, 2)), torch.ones(3, 1)).backward()
        assert torch.nn.functional.mse_loss is mine
        """,
    )
    sentences = " ".join(one["text"] for one in report["unseen"] if one["name"] is None)
    assert "torch.compile is in use" in sentences
    assert "mse_loss was replaced by the script" in sentences
    assert "no optimizer step was seen (1 backward)" in sentences


def test_a_thread_or_a_closed_stream_does_not_cost_the_report(tmp_path: Path) -> None:
    ended, report = doctored(
        tmp_path,
        MISTAKE
        + """
    import os, sys, threading, time
    threading.Thread(target=time.sleep, args=(0.1,)).start()
    os.chdir("/")
    sys.stderr.close(); sys.stdout.close(); os.close(2)
    """,
    )
    assert ended.code == 1
    assert names(report) == ["missing-zero-grad"]


IN_A_THREAD = """
    import threading, torch
    def train():
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(6):
            model(torch.ones(4, 2)).sum().backward()
            optimizer.step()
        print("done")
    thread = threading.Thread(target=train)
    thread.start()
"""


@pytest.mark.parametrize("end", ["thread.join()", ""])
def test_a_training_in_a_thread_is_heard(tmp_path: Path, end: str) -> None:
    ended, report = doctored(tmp_path, IN_A_THREAD + f"    {end}\n")
    assert ended.out == "done\n"
    assert names(report) == ["missing-zero-grad"]


def test_compiling_under_the_doctor_warns_of_nothing(tmp_path: Path) -> None:
    script = """
        import torch
        model = torch.compile(torch.nn.Linear(2, 1), backend="eager")
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(4, 2)).sum().backward()
            optimizer.step()
    """
    ended, report = doctored(tmp_path, script)
    assert "Warning" not in ended.err
    assert not any("was replaced" in one["text"] for one in report["unseen"])
