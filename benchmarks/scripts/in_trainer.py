"""A Trainer with the doctor or without: ``in_trainer.py tiny|cnn on|off EPOCHS``. Prints seconds of each epoch."""

import sys
import time
from itertools import pairwise

import torch
from torch import nn

import trueloop as tl
import trueloop.events

size, doctor, epochs = sys.argv[1], sys.argv[2] == "on", int(sys.argv[3])
torch.manual_seed(0)
if size == "tiny":
    data = (torch.randn(64_000, 8), torch.randn(64_000, 1))
    model: nn.Module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    loss: nn.Module = nn.MSELoss()
else:
    data = (torch.randn(3200, 1, 28, 28), torch.randint(0, 10, (3200,)))
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1568, 10),
    )
    loss = nn.CrossEntropyLoss()
trainer = tl.Trainer(model, loss, tl.optim.sgd(lr=0.01), doctor=doctor)
times = [
    time.perf_counter()
    for event in trainer.train(data, epochs=epochs, batch_size=64)
    if isinstance(event, (trueloop.events.RunStarted, trueloop.events.EpochEnded))
]
print(*(after - before for before, after in pairwise(times)))
