"""Hugging Face's Trainer: no logs, saves, progress, clipping or NaN filter; Adam as it is."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import torch
import transformers  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from benchmarks.workloads import LR, Stopwatch, Trained, Work


class _Samples(Dataset[dict[str, Tensor]]):
    def __init__(self, work: Work) -> None:
        self.x, self.y = work.x, work.y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.y[index]}


class _WithLoss(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.model, self.criterion = work.model(), work.make_loss()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        output = self.model(x)
        return {"loss": self.criterion(output, labels), "logits": output}


def train(work: Work, epochs: int) -> Trained:
    model, folder = _WithLoss(work), tempfile.mkdtemp(prefix="trueloop-bench-")
    wanted: dict[str, Any] = {
        "output_dir": folder,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": work.batch_size,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "use_cpu": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**wanted),
        train_dataset=_Samples(work),
        data_collator=default_collate,
        optimizers=(torch.optim.Adam(model.parameters(), lr=LR), None),
    )
    try:
        with Stopwatch() as watch:
            trainer.train()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return watch.trained(model.model)
