"""A loss of your own that says what it is the mean over: padded tokens, where microbatches count unequally."""

import torch
from torch import Tensor, nn

import trueloop as tl

PAD = 0
dice = torch.Generator().manual_seed(0)
tokens = torch.randint(1, 20, (48, 13), generator=dice)
lengths = torch.randint(2, 14, (48, 1), generator=dice)
tokens[torch.arange(13) >= lengths] = PAD


def next_token(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    inputs, targets = batch[:, :-1], batch[:, 1:]
    each = nn.functional.cross_entropy(model(inputs).transpose(1, 2), targets, reduction="none")  # (batch, time)
    real = targets != PAD
    count = real.sum()
    return (each * real).sum() / count, count  # the mean, and what it is the mean over


def train(batch_size: int, accumulate: int) -> tuple[nn.Module, float]:
    tl.seed_all(0)
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 20)).double()
    trainer = tl.Trainer(model, next_token, tl.optim.sgd(lr=0.5), accumulate=accumulate)
    result = trainer.fit(tokens, epochs=5, batch_size=batch_size, progress=False)
    return model, result.loss


whole, loss = train(batch_size=16, accumulate=1)
parts, loss_of_parts = train(batch_size=2, accumulate=8)
apart = max(float((a - b).abs().max().detach()) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
print(f"loss by token: {loss:.6f} with batches of 16, {loss_of_parts:.6f} with 8 microbatches of 2")
print(f"the weights differ by {apart:.1e}: every token counts once, wherever the batch is cut")
