"""The doctor never changes the training: the same weights after every step, the same random numbers, the same words."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import runpy
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from trueloop.doctor.listen import listening

CASES = Path(__file__).parent / "cases"
EXAMPLES = Path(__file__).parents[2] / "examples"
EVERY = 24
"""In the ordinary suite; `make proof` runs them all."""
SECONDS = 200

TIMED = ("sync-every-step", "loader-bound", "slow-settings", "seconds", "profile")
"""In the name of a script whose words are times, or counts of a profiler's."""
_TIME = re.compile(r"[\d.,]+ (s|ms|samples/s)\b")
"""How a time is written by scripts that say it beside other things."""


def scripts() -> list[Any]:
    files = [*sorted(CASES.glob("*/*.py")), *sorted(EXAMPLES.glob("*.py"))]
    return [
        pytest.param(path, id=path.stem, marks=[] if number % EVERY == 0 else [pytest.mark.slow])
        for number, path in enumerate(files)
    ]


@pytest.mark.parametrize("path", scripts())
def test_a_script_trains_to_the_same_bits(path: Path, tmp_path: Path) -> None:
    plain = in_a_process_of_its_own(lambda: traced(path, tmp_path / "plain", heard=False))
    heard = in_a_process_of_its_own(lambda: traced(path, tmp_path / "heard", heard=True))
    assert plain["steps"] == heard["steps"]
    assert plain["weights"] == heard["weights"]
    assert plain["random"] == heard["random"]
    assert plain["error"] == heard["error"]
    if not any(word in path.stem for word in TIMED):
        assert plain["out"] == heard["out"]


def test_the_comparison_sees_a_random_number_that_is_drawn(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\n"
        "p = torch.nn.Parameter(torch.ones(3))\n"
        "o = torch.optim.SGD([p], lr=0.1)\n"
        "if len(sys.argv) > 1 or 'heard' in __import__('os').getcwd(): torch.rand(1)\n"
        "(p * torch.rand(3)).sum().backward(); o.step()\n"
    )
    plain = in_a_process_of_its_own(lambda: traced(script, tmp_path / "plain", heard=False))
    other = in_a_process_of_its_own(lambda: traced(script, tmp_path / "heard", heard=False))
    assert plain["weights"] != other["weights"]
    assert plain["random"] != other["random"]


def traced(path: Path, folder: Path, *, heard: bool) -> dict[str, Any]:
    """Runs a script and digests its weights after each optimizer step."""
    folder.mkdir()
    os.chdir(folder)
    sys.argv[:] = [str(path)]
    sys.path.insert(0, str(path.parent))
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    digest, steps = hashlib.sha256(), 0

    def stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal steps
        steps += 1
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if type(parameter.data) is torch.Tensor and parameter.layout == torch.strided:
                    digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())

    register_optimizer_step_post_hook(stepped)
    out, error = io.StringIO(), None
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        if heard:
            stack.enter_context(listening())
        try:
            runpy.run_path(str(path), run_name="__main__")
        except (Exception, SystemExit) as raised:
            error = type(raised).__name__
    drawn = hashlib.sha256(torch.random.get_rng_state().numpy().tobytes())
    drawn.update(repr((np.random.get_state(), random.getstate())).encode())
    return {
        "steps": steps,
        "weights": digest.hexdigest(),
        "random": drawn.hexdigest(),
        "error": error,
        "out": _TIME.sub("", out.getvalue().replace(str(folder), "")),
    }


def in_a_process_of_its_own(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` returns, from a fork: what a script leaves behind dies with it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            signal.alarm(SECONDS)
            with os.fdopen(write, "w") as pipe:
                json.dump(work(), pipe)
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said, "the script's process ended without a word"
    answer: dict[str, Any] = json.loads(said)
    return answer
