"""Accumulation: microbatches that fit into memory, and the gradient of the one big batch, to the last window."""

import torch
from torch import nn

import trueloop as tl

x = torch.randn(100, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
y = x.prod(1, keepdim=True)


def train(batch_size: int, accumulate: int) -> tuple[nn.Module, tl.Result]:
    tl.seed_all(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1)).double()
    trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.adam(lr=0.01), accumulate=accumulate)
    return model, trainer.fit((x, y), epochs=10, batch_size=batch_size, progress=False)


# 100 samples in batches of 32: the last one of an epoch has 4. In microbatches of 8: the last window has one of 4.
whole, result = train(batch_size=32, accumulate=1)
parts, result_of_parts = train(batch_size=8, accumulate=4)
apart = max(float((a - b).abs().max().detach()) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
print(f"{result.steps} steps of 32, loss {result.loss:.6f}")
print(f"{result_of_parts.steps} steps of 4 x 8, loss {result_of_parts.loss:.6f}")
print(f"the weights differ by {apart:.1e}")
