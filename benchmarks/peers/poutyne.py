"""poutyne: Model.fit_generator, quiet; its loss is read every step, which cannot be turned off."""

from __future__ import annotations

import torch
from poutyne import Model  # type: ignore[import-not-found]

from benchmarks.workloads import LR, Stopwatch, Trained, Work


def train(work: Work, epochs: int) -> Trained:
    network, loader = work.model(), work.loader()
    model = Model(network, torch.optim.Adam(network.parameters(), lr=LR), work.make_loss())
    with Stopwatch() as watch:
        model.fit_generator(loader, epochs=epochs, verbose=False)
    return watch.trained(network)
