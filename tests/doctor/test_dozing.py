"""Long runs: after the first steps the doctor dozes between rounds, and wakes for what matters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from trueloop.doctor.facts import Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.listen import listening
from trueloop.doctor.rule import Rule
from trueloop.doctor.trace import Trace


class Steps(Rule):
    """Keeps the steps that it hears."""

    name, code, level, certainty = "steps", 0, "note", "certain"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.heard: list[int] = []

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        self.heard.append(self.trace.step)
        yield from ()


def train(steps: int, *, dropout: float = 0.0, evaluate_each: int = 0, eval_mode: bool = True) -> None:
    """A small training, with a validation now and then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(dropout), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, held_out = torch.randn(64, 8), torch.randn(32, 8)
    batches = DataLoader(TensorDataset(held_out, held_out.sum(1, keepdim=True)), batch_size=16)
    draws = RandomSampler(x, replacement=True, num_samples=8 * steps)
    for step, (inputs, targets) in enumerate(
        DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, sampler=draws)
    ):
        model.train()
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if evaluate_each and step % evaluate_each == evaluate_each - 1:
            if eval_mode:
                model.eval()
            with torch.no_grad():
                for seen, wanted in batches:
                    F.mse_loss(model(seen), wanted)


def test_after_the_first_steps_few_are_heard_and_all_are_counted() -> None:
    with listening([Steps], close_steps=50, close_every=20) as trace:
        train(1000)
    (rule,) = trace.rules
    assert isinstance(rule, Steps)
    late = [step for step in rule.heard if step > 50]
    assert rule.heard[:50] == list(range(1, 51))
    assert trace.step == 1000
    assert trace.optimizers[0].steps == 1000
    assert 0 < len(late) <= 2 * 950 / 20
    assert late[-1] > 900


def test_steps_in_a_row_are_heard_each_time() -> None:
    with listening([Steps], close_steps=50, close_every=20) as trace:
        train(500)
    (rule,) = trace.rules
    assert isinstance(rule, Steps)
    late = [step for step in rule.heard if step > 60]
    assert all(step + 1 in late or step - 1 in late for step in late[1:-1])


def test_a_validation_late_in_a_long_epoch_is_heard() -> None:
    with listening() as trace:
        train(1500, dropout=0.5, evaluate_each=750, eval_mode=False)
    assert [f.name for f in trace.findings if f.level != "note"] == ["evaluation-in-train-mode"]
    with listening() as trace:
        train(1500, dropout=0.5, evaluate_each=750)
    assert [f.name for f in trace.findings if f.level != "note"] == []


def test_a_value_that_breaks_while_it_dozes_is_told_at_once_and_with_its_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    data = torch.rand(1200, 4) + 1
    data[1000, 2] = -5.0
    with listening(close_steps=20, close_every=50) as trace:
        trace.save_to = tmp_path
        for (x,) in DataLoader(TensorDataset(data), batch_size=4):
            optimizer.zero_grad()
            (x.log().sum(1) - model(x).squeeze(1)).square().mean().backward()
            optimizer.step()
    (finding,) = [f for f in trace.findings if f.name == "non-finite-value"]
    assert finding.step in (250, 251)  # 250 steps were taken before this one
    assert "forward" in " ".join(finding.evidence)
    (kept,) = tmp_path.iterdir()
    batch = load_file(kept)
    assert any(torch.equal(tensor, data[1000:1004]) for tensor in batch.values())


def test_nothing_costly_stands_in_the_way_while_it_dozes() -> None:
    from torch.nn.modules import module as hooks

    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with listening([Steps], close_steps=10, close_every=50) as trace:
        for _ in range(12):
            weight.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert trace.dozes
        assert not hooks._global_forward_hooks
        assert not hooks._global_forward_pre_hooks
    assert not trace.costly


def test_a_limit_of_steps_holds_also_while_it_dozes(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import torch\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "optimizer = torch.optim.SGD([weight], lr=0.1)\n"
        "for step in range(400):\n"
        "    optimizer.zero_grad()\n"
        "    weight.square().sum().backward()\n"
        "    optimizer.step()\n"
        "    print(step, flush=True)\n"
    )
    command = [sys.executable, "-m", "trueloop", "doctor", "--max-steps", "170", "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split()[-1] == "168"  # the 170th step ends it
    assert "170 steps" in done.stderr
