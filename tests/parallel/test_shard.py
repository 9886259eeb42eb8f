"""FSDP: the curve of one process, however a model is cut up; a state that any number of processes goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.parallel.conftest import Launch
from torch import Tensor, nn

from trueloop.checkpoint.weights import load_weights
from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.parallel.gather import whole
from trueloop.parallel.shard import in_step, shard
from trueloop.parallel.units import FSDP, units_of

COMMON = """
import os, sys
import torch
from torch import nn
import trueloop as tl
from trueloop.errors import TrueloopError
from trueloop.parallel.units import FSDP

FIRST, PROCESSES = os.environ.get("RANK", "0") == "0", int(os.environ.get("WORLD_SIZE", "1"))

def weights(model):
    every = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return torch.cat([p.detach().flatten() for p in every])

def mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 7), nn.Tanh(), nn.Linear(7, 3))

def data(samples):
    torch.manual_seed(0)
    return torch.randn(samples, 8), torch.randint(0, 3, (samples,))

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.blocks = nn.Linear(8, 16), nn.ModuleList([Block(16), Block(16)])
        self.norm, self.last = nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(self.norm(x))
"""

BITS = (
    COMMON
    + """
accumulate, saved = int(sys.argv[2]), {}
for dtype in (torch.float32, torch.float64):
    torch.set_default_dtype(dtype)
    for name, optimizer in {"sgd": tl.optim.sgd(lr=0.1, momentum=0.9), "adamw": tl.optim.adamw(lr=1e-2)}.items():
        x, y = data(320)
        model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 13), nn.LayerNorm(13), nn.Linear(13, 10))
        trainer = tl.Trainer(model, nn.CrossEntropyLoss(), optimizer, accumulate=accumulate, parallel="fsdp")
        trainer.fit((x, y), epochs=4, batch_size=32 // accumulate, seed=1, progress=False)
        saved[name, str(dtype)] = weights(model)
if FIRST:
    torch.save(saved, sys.argv[1])
"""
)

CURVES = (
    COMMON
    + """
torch.set_default_dtype(torch.float64)

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.blocks = nn.Embedding(11, 6), nn.ModuleList([Block(6) for _ in range(2)])
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        h = self.embedding(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)

def of_tokens(model, batch):
    x, y = batch
    return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()), (y != -100).sum()

def run(model, loss, optimizer, x, y, **how):
    seen = []
    trainer = tl.Trainer(model, loss, optimizer, parallel="fsdp", **how)

    def watch(event):
        if isinstance(event, tl.StepEnded):
            seen.append(float(event.loss) + (0.0 if event.grad_norm is None else float(event.grad_norm)))
        elif isinstance(event, tl.EvalEnded):
            seen.append(event.metrics["loss"])

    trainer.fit((x, y), (x[:41], y[:41]), epochs=3, batch_size=32, seed=1, progress=False, observers=[watch])
    alone = trainer.evaluate((x[:1], y[:1]))["loss"]
    outputs = trainer.predict(x[:7], batch_size=3)
    return torch.cat([weights(trainer.averaged or model), torch.tensor([*seen, alone]), outputs.flatten()])

def sgd():
    return tl.optim.sgd(lr=0.1, momentum=0.9)

saved = {}
x, y = data(97)
torch.manual_seed(1)
weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))
saved["clip"] = run(mlp(), weighted, sgd(), x, y, clip_norm=0.3, accumulate=2)
saved["average"] = run(mlp(), weighted, sgd(), x, y, average=tl.optim.ema(0.9), clip_value=0.01)
saved["swa"] = run(Net().double(), weighted, sgd(), *data(96), average=tl.optim.swa(0.5)) if PROCESSES == 1 else None
saved["penalty"] = run(mlp(), weighted, sgd(), x, y, penalty=tl.objective.l2(0.01))
model = mlp()
saved["instance"] = run(model, weighted, torch.optim.SGD(model.parameters(), lr=0.1), x, y)
tokens = torch.randint(0, 11, (97, 5))
targets = tokens.flip(1).clone()
targets[::3, 2:] = -100
adamw = tl.optim.adamw(lr=1e-2, weight_decay=0.1)
saved["tokens"] = run(
    Tokens(), of_tokens, adamw, tokens, targets, accumulate=2, clip_norm=1.0, average=tl.optim.ema(0.9)
)
if FIRST:
    torch.save(saved, sys.argv[1])
"""
)

SETTINGS = (
    COMMON
    + """
saved = {}
ways = {
    "plain": "fsdp",
    "classes": FSDP(wrap=[Block]),
    "names": FSDP(wrap=["Block", "Linear"]),
    "size": FSDP(wrap=300),
    "kept": FSDP(reshard_after_forward=False),
    "checkpointed": FSDP(checkpoint_activations=True),
    "offloaded": FSDP(cpu_offload=True),
    "half": FSDP(mixed_precision="bf16", checkpoint_activations=True),
}
x, y = data(64)
for name, way in ways.items():
    torch.manual_seed(3)
    model = Net()
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.adamw(lr=1e-2), parallel=way)
    trainer.fit((x, y), epochs=2, batch_size=16, seed=1, progress=False)
    saved[name] = weights(model)
for name, way in {"meta": "fsdp", "meta by size": FSDP(wrap=300)}.items():
    torch.manual_seed(3)
    with torch.device("meta"):
        model = Net()
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.adamw(lr=1e-2), parallel=way, average=tl.optim.ema())
    trainer.setup
    saved[name] = weights(model)
    trainer.fit((x, y), epochs=1, batch_size=16, seed=1, progress=False)

class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 8, device="meta"))

def outside(model, batch):
    return model(batch[0]).sum() + (batch[0] @ model[0].weight.T).sum()

def said(model, loss=nn.CrossEntropyLoss(), optimizer=tl.optim.sgd(lr=0.1), **how):
    try:
        trainer = tl.Trainer(model, loss, optimizer, parallel="fsdp", **how)
        trainer.setup
        trainer.fit((x, y), epochs=1, batch_size=16, progress=False)
    except TrueloopError as error:
        return str(error)

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.out, self.scale = nn.Linear(8, 3), nn.Parameter(torch.ones(()))

saved["errors"] = [
    said(Bare()),
    said(mlp(), optimizer=tl.optim.lbfgs()),
    said(mlp(), optimizer=lambda model: torch.optim.Rprop(model.parameters())),
    said(mlp(), memory_format="channels_last"),
    said(mlp(), outside),
    said(Scaled()),
]
if FIRST:
    torch.save(saved, sys.argv[1])
"""
)

RESUMED = (
    COMMON
    + """
torch.set_default_dtype(torch.float64)
out, resume, stop_at = sys.argv[2], sys.argv[3] == "resume", int(sys.argv[4])
x, y = data(97)
model = mlp()
trainer = tl.Trainer(
    model,
    nn.CrossEntropyLoss(),
    tl.optim.adamw(lr=1e-2),
    schedule=tl.schedules.warmup_cosine(warmup_steps=3),
    average=tl.optim.ema(0.9),
    clip_norm=0.5,
    parallel="fsdp",
)
trainer.fit(
    (x, y),
    (x[:41], y[:41]),
    epochs=4,
    batch_size=16,
    seed=1,
    progress=False,
    out=out,
    saving=tl.Saving(every_steps=3, best="loss"),
    resume=out if resume else None,
    observers=[lambda e: tl.Stop("enough") if isinstance(e, tl.StepEnded) and e.step == stop_at else None],
)
if stop_at:  # it ended on purpose: what is gone on with is the step before
    import shutil
    if FIRST:
        for path in os.listdir(out + "/checkpoints"):
            if path.startswith("step-00000010"):
                shutil.rmtree(out + "/checkpoints/" + path)
both = torch.cat([weights(trainer.averaged), weights(model)])
if FIRST:
    torch.save(both, sys.argv[1])
"""
)


TIED = (
    COMMON
    + """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(int(sys.argv[3]), 8), nn.Linear(8, int(sys.argv[3]), bias=False)
        self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(self.words(x))

def trainer():
    torch.manual_seed(0)
    kept = tl.optim.ema(0.9)
    return tl.Trainer(Tied(), nn.CrossEntropyLoss(), tl.optim.adamw(lr=1e-2), average=kept, parallel="fsdp")

x = torch.randint(0, int(sys.argv[3]), (64,), generator=torch.Generator().manual_seed(1))
how = {"steps": 10, "batch_size": 8, "seed": 1, "progress": False}
first, second = trainer(), trainer()
first.fit((x, x), **how, out=sys.argv[2], saving=tl.Saving(every_steps=5))
second.resume(sys.argv[2], step=5)
second.fit((x, x), **how)
both = weights(first.model), weights(second.model), second.step
if FIRST:
    torch.save(both, sys.argv[1])
"""
)


@pytest.mark.parametrize("rows", [pytest.param("31", id="uneven parts"), pytest.param("32", id="even parts")])
def test_tied_weights_are_written_once_and_gone_on_with(launch: Launch, tmp_path: Path, rows: str) -> None:
    unbroken, resumed, steps = launch(TIED, 2, str(tmp_path / "run"), rows)
    assert steps == 10
    assert torch.equal(resumed, unbroken)
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        assert list(file.keys()) == ["out.weight"]


def test_two_processes_have_the_bits_of_one_that_accumulates(launch: Launch) -> None:
    """Parts that are no whole vectors of the processor: torch's fused kernels alone would round what is left over."""
    two, one = launch(BITS, 2, "1"), launch(BITS, 1, "2")
    assert {name: torch.equal(two[name], one[name]) for name in one} == dict.fromkeys(one, True)
    assert len(one) == 4


@pytest.mark.parametrize(
    "processes", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_weights_losses_norms_and_predictions_are_those_of_one_process(launch: Launch, processes: int) -> None:
    one, many = launch(CURVES, 1), launch(CURVES, processes)
    apart = {name: float((many[name] - one[name]).abs().max()) for name in one if many[name] is not None}
    assert apart.keys() == {"clip", "average", "penalty", "instance", "tokens"}
    assert max(apart.values()) < 1e-10, apart


FEW_ROWS = (
    COMMON
    + """
generator = torch.Generator().manual_seed(0)
x, y = torch.randn(24, 4, generator=generator), torch.randn(24, 2, generator=generator)
torch.manual_seed(0)
trainer = tl.Trainer(nn.Linear(4, 2), nn.MSELoss(), tl.optim.adamw(lr=0.1), parallel="fsdp", clip_norm=0.5)
trainer.fit((x, y), epochs=2, batch_size=8, seed=0, progress=False)
every = weights(trainer.model)
if FIRST:
    torch.save(every, sys.argv[1])
"""
)


@pytest.mark.slow
def test_a_process_may_have_no_part_of_any_weight(launch: Launch) -> None:
    torch.testing.assert_close(launch(FEW_ROWS, 3), launch(FEW_ROWS, 1))


@pytest.fixture(scope="module")
def settings(launch: Launch) -> dict[str, Any]:
    saved: dict[str, Any] = launch(SETTINGS, 2)
    return saved


@pytest.mark.parametrize("name", ["classes", "names", "size", "kept", "checkpointed", "offloaded"])
def test_how_it_is_cut_up_changes_no_bit(settings: dict[str, Tensor], name: str) -> None:
    assert torch.equal(settings[name], settings["plain"])


def test_bf16_is_near(settings: dict[str, Tensor]) -> None:
    difference = (settings["half"] - settings["plain"]).abs().max()
    assert 0 < difference < 0.16  # eight steps of Adam, each of at most its rate, one way and the other


def test_a_model_without_memory_begins_alike_however_it_is_cut_up(settings: dict[str, Tensor]) -> None:
    assert torch.equal(settings["meta"], settings["meta by size"])
    begun = settings["meta"][: 8 * 16]
    assert 0.1 < float(begun.std()) < 0.3  # nn.Linear's own: uniform within 1 / sqrt(8)


def test_what_cannot_be_cut_up_is_told(settings: dict[str, list[str]]) -> None:
    bare, lbfgs, rprop, layout, outside, lone = settings["errors"]
    assert "a Bare on the meta device has to initialise itself, and has no reset_parameters()" in bare
    assert "torch's LBFGS does not take weights that lie in parts" in lbfgs
    assert "torch's Rprop does not take weights that lie in parts" in rprop
    assert "memory_format='channels_last' does not go with FSDP" in layout
    assert "a weight was used outside of the model's forward pass" in outside
    assert "scale has none: give it the shape (1,)" in lone


def test_saved_on_two_and_gone_on_with_on_one(launch: Launch, tmp_path: Path) -> None:
    unbroken = launch(RESUMED, 1, str(tmp_path / "unbroken"), "anew", "0")
    launch(RESUMED, 2, str(tmp_path / "run"), "anew", "10")
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    load_weights(model, tmp_path / "run" / "model.safetensors")
    goes_on = launch(RESUMED, 1, str(tmp_path / "run"), "resume", "0")
    assert (goes_on - unbroken).abs().max() < 1e-10


@pytest.mark.slow
def test_saved_on_two_and_gone_on_with_on_two_three_and_four(launch: Launch, tmp_path: Path) -> None:
    """The last layer's three rows leave one of four processes without any."""
    unbroken = launch(RESUMED, 2, str(tmp_path / "unbroken"), "anew", "0")
    for processes in (2, 3, 4):
        launch(RESUMED, 2, str(tmp_path / f"run{processes}"), "anew", "10")
        goes_on = launch(RESUMED, processes, str(tmp_path / f"run{processes}"), "resume", "0")
        assert torch.equal(goes_on, unbroken) if processes == 2 else (goes_on - unbroken).abs().max() < 1e-10


# --- on one process -------------------------------------------------------------------------------------------------


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)])
        first, last = self.layers[0], self.layers[2]
        assert isinstance(first, nn.Embedding)
        assert isinstance(last, nn.Linear)
        last.weight = first.weight


def test_a_weight_that_two_share_does_not_come_apart() -> None:
    model = _Tied()
    assert units_of(model, None) == [model.layers[1]]
    assert units_of(model, ["Linear"]) == [model.layers[1]]


def test_blocks_are_the_children_of_the_outermost_lists() -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    first, last = nn.Linear(2, 2), nn.Linear(2, 1)
    model = nn.Sequential(first, nn.ModuleList([block, nn.ModuleList([last])]), nn.ReLU())
    assert units_of(model, None) == [first, block, last]


def test_a_class_that_is_not_there_is_told() -> None:
    with pytest.raises(UnknownNameError, match=r"Lineer.*Linear"):
        units_of(nn.Sequential(nn.Linear(1, 1)), ["Lineer"])


@pytest.mark.parametrize("how", [{"wrap": 0}, {"wrap": "Linear"}, {"wrap": nn.Linear}, {"mixed_precision": "fp8"}])
def test_settings_that_cannot_be(how: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        FSDP(**how)


def test_on_one_process_nothing_is_cut_up() -> None:
    assert list(in_step(iter([torch.ones(1)]))) == [torch.ones(1)]
    tree = {"weights": (torch.ones(2), None), "step": 3}
    assert whole(tree) == tree


def test_a_model_without_a_forward_pass_is_refused() -> None:
    model = nn.ModuleDict({"generator": nn.Linear(3, 4), "critic": nn.Linear(4, 1)})
    with pytest.raises(ArgumentError, match=r"a ModuleDict has none: make it a module of your own"):
        shard(model, FSDP(), torch.device("cpu"))
