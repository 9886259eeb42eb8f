"""The loop that everybody writes by hand: the measure of all others."""

from __future__ import annotations

import torch

from benchmarks.workloads import LR, Stopwatch, Trained, Work


def train(work: Work, epochs: int) -> Trained:
    """Without evaluation: the hard comparison."""
    model, criterion, loader = work.model(), work.make_loss(), work.loader()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    with Stopwatch() as watch:
        model.train()
        for _ in range(epochs):
            running = 0.0
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                running += loss.item()
    return watch.trained(model)


def train_and_evaluate(work: Work, epochs: int) -> Trained:
    """The same with an evaluation of loss and mean absolute error each epoch, as the full run of trueloop has."""
    model, criterion, loader = work.model(), work.make_loss(), work.loader()
    held_out = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(work.x_val, work.y_val), batch_size=work.batch_size
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    with Stopwatch() as watch:
        for _ in range(epochs):
            model.train()
            running = 0.0
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                running += loss.item()
            model.eval()
            total = error = 0.0
            with torch.no_grad():
                for x, y in held_out:
                    output = model(x)
                    total += criterion(output, y).item() * len(x)
                    error += (output - y).abs().mean().item() * len(x)
    return watch.trained(model)


def train_tuned(work: Work, epochs: int) -> Trained:
    """A loop by hand with all that helps: one gather a batch, fused Adam, no reading of the loss."""
    model, criterion = work.model(), work.make_loss()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    with Stopwatch() as watch:
        model.train()
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(work.x)), work.batch_size):
                optimizer.zero_grad()
                loss = criterion(model(work.x.index_select(0, rows)), work.y.index_select(0, rows))
                loss.backward()
                optimizer.step()
    return watch.trained(model)


def train_bf16(work: Work, epochs: int) -> Trained:
    """bf16 and channels_last by hand."""
    model, criterion, loader = work.model(), work.make_loss(), work.loader()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    with Stopwatch() as watch:
        model.train()
        for _ in range(epochs):
            running = 0.0
            for x, y in loader:
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                running += loss.item()
    return watch.trained(model)
