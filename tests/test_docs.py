"""What the documentation shows runs: every python block of a page, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def names_of_the_readme() -> dict[str, Any]:
    """What README's blocks take for granted: a model of ten classes, and its data."""
    torch.manual_seed(0)
    x = torch.randn(2816, 12)
    train, val = ((part, part[:, :10].argmax(1)) for part in (x[:2560], x[2560:]))
    return {
        "model": nn.Linear(12, 10),
        "train": train,
        "val": val,
        "train_loader": DataLoader(TensorDataset(*train), batch_size=128),
        "val_loader": DataLoader(TensorDataset(*val), batch_size=128),
        "curriculum": nn.Linear(1, 1),
        "criterion": nn.CrossEntropyLoss(),
        "accuracy": MulticlassAccuracy(10, average="micro"),
    }


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_every_python_block_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write to runs/
    text = (ROOT / page).read_text(encoding="utf-8")
    names = names_of_the_readme() if page == "README.md" else {}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python") > 0
    for block in blocks:
        before = "\n" * text.count("\n", 0, block.start(1))  # so that a traceback names the page's own line
        exec(compile(before + block.group(1), str(ROOT / page), "exec"), names)


def test_the_page_of_the_library_names_all_that_is_public() -> None:
    import trueloop as tl

    text = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    public = [*tl.__all__, *tl.optim.__all__, *tl.observers.__all__, *tl.data.__all__]
    missing = [name for name in public if not re.search(rf"\b{name}\b", text)]
    assert missing == []
