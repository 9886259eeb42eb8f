"""Programs of several files: what only shows where they meet is told, once, at the line where it stands."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from trueloop.doctor.source.checks import check
from trueloop.doctor.source.read import Source

MODELS = """
    import torch.nn.functional as F
    from torch import nn
    class Base(nn.Module):
        def forward(self, x):
            return F.softmax(self.scores(x), dim=1)
    class Net(Base):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)
        def scores(self, x):
            return self.last(x)
"""
ENGINE = """
    def epoch(model, criterion, optimizer, loader):
        for x, y in loader:
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
"""
TRAIN = """
    import torch
    from engine import epoch
    from models import Net
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for n in range(3):
        epoch(net, torch.nn.CrossEntropyLoss(), optimizer, loader)
"""


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))


def found(file: Path, name: str = "") -> list[tuple[str, str, int | None]]:
    source = Source(name or str(file), file.read_text())
    return [(one.finding.name, one.finding.file or "", one.finding.line) for one in check(source)]


def test_a_model_of_one_file_in_a_loss_of_another(tmp_path: Path) -> None:
    write(tmp_path, models=MODELS, engine=ENGINE, train=TRAIN)
    engine = str((tmp_path / "engine.py").resolve())
    assert found(tmp_path / "train.py") == [("softmax-before-cross-entropy", engine, 4)]
    assert found(tmp_path / "engine.py") == []


def test_it_is_named_from_here_if_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, models=MODELS, engine=ENGINE, train=TRAIN)
    monkeypatch.chdir(tmp_path)
    assert found(tmp_path / "train.py", "train.py") == [("softmax-before-cross-entropy", "engine.py", 4)]


def test_what_a_file_shows_by_itself_is_told_there_alone(tmp_path: Path) -> None:
    wrong = "import torch\n" + textwrap.dedent(ENGINE).replace("optimizer.zero_grad()", "pass")
    write(tmp_path, models=MODELS.replace("F.softmax(self.scores(x), dim=1)", "self.scores(x)"), train=TRAIN)
    (tmp_path / "engine.py").write_text(wrong)
    assert [name for name, _, _ in found(tmp_path / "engine.py")] == ["missing-zero-grad"]
    assert found(tmp_path / "train.py") == []


def test_a_meter_of_another_file_that_does_not_name_torch(tmp_path: Path) -> None:
    meter = """
        class Meter:
            def __init__(self):
                self.sum = 0
            def update(self, value):
                self.sum = self.sum + value
    """
    train = """
        import torch
        from meters import Meter
        net, meter = torch.nn.Linear(4, 3), Meter()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            loss = torch.nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            meter.update(loss)
    """
    write(tmp_path, meters=meter, train=train)
    place = str((tmp_path / "meters.py").resolve())
    assert ("retained-graph", place, 6) in found(tmp_path / "train.py")
