"""Metrics and predictions on 1 to 4 processes: the same numbers, to the bit; and what follows from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torchmetrics

from trueloop.parallel.deal import fold, folds, in_order, states_of

Launch = Callable[..., Any]

SCRIPT = '''
import os, sys, warnings
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchmetrics import Metric, classification
import trueloop as tl

warnings.simplefilter("ignore")  # a class without a sample, in a set of 1
rank = int(os.environ.get("RANK", 0))


class Odd(Metric):
    """Its states do not add up."""
    def __init__(self):
        super().__init__()
        self.add_state("value", torch.tensor(1.0), dist_reduce_fx=None)

    def update(self, outputs, targets):
        self.value = self.value * (1 + outputs.softmax(1).max(1).values.mean()) % 7

    def compute(self):
        return self.value


class Samples(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class Stream(IterableDataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        return iter(zip(self.x, self.y))


def metrics():
    return dict(
        accuracy=classification.MulticlassAccuracy(3), f1=classification.MulticlassF1Score(3, average=None),
        auroc=classification.MulticlassAUROC(3), confusion=classification.MulticlassConfusionMatrix(3), odd=Odd(),
        calibration=classification.MulticlassCalibrationError(3),
        function=lambda outputs, targets: (outputs.argmax(1) == targets).float().mean(),
    )


torch.manual_seed(rank)  # rank 0's weights count
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
trainer = tl.Trainer(model, nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5])), tl.optim.sgd(lr=0.1),
                     metrics=metrics(), doctor=False)
found = {}
for n in (1, 7, 97, 1000):
    generator = torch.Generator().manual_seed(n)
    x, y = torch.randn(n, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator)
    for name, data, size in (("arrays", (x, y), 16), ("dataset", Samples(x, y), 16),
                             ("loader", DataLoader(Samples(x, y), 16), None), ("stream", Stream(x, y), 16)):
        workers = 2 if name == "dataset" and n == 97 else 0
        found[f"{name} of {n}"] = (trainer.evaluate(data, batch_size=size, workers=workers),
                                   trainer.predict(data, batch_size=size, workers=workers))
last = int(os.environ.get("WORLD_SIZE", 1)) - 1
if rank == last:  # every process has it
    torch.save(found, sys.argv[1])
'''


@pytest.fixture(scope="module")
def found(launch: Launch) -> Callable[[int], Any]:
    @cache
    def found_on(processes: int) -> Any:
        return launch(SCRIPT, processes)

    return found_on


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow), 4])
def test_metrics_and_predictions_are_those_of_one_process_to_the_bit(
    found: Callable[[int], Any], processes: int
) -> None:
    one, several = found(1), found(processes)
    assert len(one) == 16
    for case, (metrics, outputs) in one.items():
        theirs, predicted = several[case]
        assert torch.equal(predicted, outputs), case
        assert list(theirs) == list(metrics), case
        for name, value in metrics.items():
            assert theirs[name] == value or (theirs[name] != theirs[name] and value != value), f"{case}: {name}"


DECISIONS = """
import os, sys
import torch
from torch import distributed, nn
import trueloop as tl

rank = int(os.environ["RANK"])
x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
y = (x.sum(1, keepdim=True) > 0).float()


def run(observers=(), model=None, seed=1, val=True, **options):
    torch.manual_seed(rank)
    model = model or nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 1))
    trainer = tl.Trainer(model, nn.BCEWithLogitsLoss(), tl.optim.sgd(lr=0.5), doctor=False, **options)
    rates, steps = [], []

    def note(event):
        if isinstance(event, tl.StepEnded):
            rates.append(event.lr), steps.append(float(event.loss))

    result = trainer.fit((x, y), (x[:9], 1 - y[:9]) if val else None, epochs=12, batch_size=16, seed=seed,
                         progress=False, observers=[note, *observers])
    return {"rates": rates, "losses": steps, "steps": trainer.step, "reason": result.reason,
            "weights": torch.cat([p.detach().flatten() for p in model.parameters()])}


class Draws(nn.Module):
    def __init__(self):
        super().__init__()
        self.out, self.masks = nn.Linear(4, 1), []

    def forward(self, x):
        if self.training:
            self.masks.append(torch.rand(4))
        return self.out(x)


def stops(event):
    if rank == 1 and isinstance(event, tl.StepEnded) and event.step == 7:
        return tl.Stop("one has had enough")


def stop_all(event):
    return tl.Stop("all have had enough") if isinstance(event, tl.StepEnded) and event.step == 7 else None


def late(event):  # another process's word of the step before comes with this event
    return tl.Stop("at the end") if rank == 1 and isinstance(event, tl.StepEnded) and event.step == 16 else None


draws, again = Draws(), Draws()
own = {
    "early": run([tl.observers.EarlyStop("loss", patience=2)]),
    "plateau": run(schedule=tl.schedules.stepped(
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5),
        every="evaluation", metric="loss")),
    "stopped": run([stops]),
    "all stopped": run([stop_all]),
    "stopped at an epoch's last step": run([late]),
    "unseeded": run(seed=None),
    "draws": (run(model=draws), torch.stack(draws.masks))[1],
    "again": (run(model=again), torch.stack(again.masks))[1],
    "dropout": run(),
    "dropout again": run(),
}
every = [None, None]
distributed.all_gather_object(every, own)
if rank == 0:
    torch.save(every, sys.argv[1])
"""


@pytest.fixture(scope="module")
def decided(launch: Launch) -> Any:
    """What each of two processes decided."""
    return launch(DECISIONS, 2)


@pytest.mark.parametrize(
    "case", ["early", "plateau", "stopped", "all stopped", "stopped at an epoch's last step", "unseeded", "dropout"]
)
def test_all_decide_alike(decided: Any, case: str) -> None:
    first, second = (dict(own[case]) for own in decided)
    assert torch.equal(first.pop("weights"), second.pop("weights"))
    assert first == second


def test_an_early_stop_and_a_plateau_happen(decided: Any) -> None:
    assert decided[0]["early"]["steps"] < 48
    assert len(set(decided[0]["plateau"]["rates"])) > 1


def test_a_stop_of_one_ends_all_after_the_same_step(decided: Any) -> None:
    for own in decided:
        assert (own["stopped"]["steps"], own["stopped"]["reason"]) == (8, "one has had enough")


def test_a_stop_of_all_ends_them_at_once_as_it_ends_one_process(decided: Any) -> None:
    for own in decided:
        assert (own["all stopped"]["steps"], own["all stopped"]["reason"]) == (7, "all have had enough")


def test_a_stop_at_an_epoch_s_last_step_ends_with_the_epoch(decided: Any) -> None:
    for own in decided:
        last = own["stopped at an epoch's last step"]
        assert (last["steps"], last["reason"]) == (16, "at the end")


def test_dropout_is_each_process_s_own_and_the_same_in_another_run(decided: Any) -> None:
    first, second = (own["draws"] for own in decided)
    assert not (first == second).any()
    for own in decided:
        assert torch.equal(own["draws"], own["again"])
        assert torch.equal(own["dropout"]["weights"], own["dropout again"]["weights"])


APART = """
import os, sys
import torch
from torch import distributed, nn
from torchmetrics import SumMetric
from torchmetrics.classification import BinaryAccuracy
import trueloop as tl

distributed.init_process_group("gloo")
rank = distributed.get_rank()
torch.manual_seed(0)
x = torch.randn(10 + rank, 4)  # nothing need be alike
y = torch.full((10 + rank, 1), float(rank))
trainer = tl.Trainer(nn.Linear(4, 1), nn.BCEWithLogitsLoss(), tl.optim.sgd(lr=0.1), doctor=False, parallel=None,
                     metrics={"accuracy": BinaryAccuracy(), "mean": lambda outputs, targets: targets.mean()})
trainer.fit((x, y), (x, y), epochs=20 + rank, batch_size=4, seed=1, progress=False, out=f"{sys.argv[1]}.{rank}")
own = {**trainer.evaluate((x, y)), "samples": len(trainer.predict((x, y))), "step": trainer.step}
every = [None, None]
distributed.all_gather_object(every, own)
if rank == 0:
    torch.save(every, sys.argv[1])
distributed.destroy_process_group()
"""


def test_without_parallel_each_process_trains_and_evaluates_for_itself(launch: Launch) -> None:
    first, second = launch(APART, 2)
    assert (first["samples"], second["samples"]) == (10, 11)
    assert (first["step"], second["step"]) == (20 * 3, 21 * 3)
    assert (first["mean"], second["mean"]) == (0, 1)
    assert first["accuracy"] == second["accuracy"] == 1


# --- in one process -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric",
    [
        torchmetrics.MeanSquaredError(),
        torchmetrics.SumMetric(),
        torchmetrics.MaxMetric(),
        torchmetrics.CatMetric(),
        torchmetrics.classification.BinaryAUROC(thresholds=5),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_the_states_of_batches_fold_into_those_of_all(metric: torchmetrics.Metric) -> None:
    assert folds(metric)
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand(size, generator=generator), torch.ones(size).bernoulli_(generator=generator)) for size in (5, 1, 3)
    ]
    takes_two = not isinstance(metric, (torchmetrics.SumMetric, torchmetrics.MaxMetric, torchmetrics.CatMetric))
    states = []
    for batch in batches:
        metric.reset()
        metric.update(*batch[: 1 + takes_two])
        states.append(states_of(metric))
    metric.reset()
    for batch in batches:
        metric.update(*batch[: 1 + takes_two])
    expected = metric.compute()
    metric.reset()
    fold(metric, states)
    assert torch.equal(metric.compute(), expected)


def test_a_metric_whose_states_do_not_add_up_is_known() -> None:
    assert not folds(torchmetrics.PearsonCorrCoef())


def test_alone_what_is_dealt_is_in_order() -> None:
    assert in_order([1, 2, 3]) == [1, 2, 3]
