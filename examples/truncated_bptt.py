"""Truncated backpropagation through time: a state goes from batch to batch, its gradient does not."""

import torch
from torch import nn

import trueloop as tl

tl.seed_all(0)
signal = torch.randn(32, 240, 1)  # 32 streams of 240 moments
echo = signal.roll(2, dims=1)  # the task: say what was heard two moments ago
pieces = list(zip(signal.chunk(40, dim=1), echo.chunk(40, dim=1), strict=True))  # batches, in the order of time


class Listener(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.GRU(1, 32, batch_first=True)
        self.answer = nn.Linear(32, 1)

    def forward(self, heard: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, state = self.memory(heard, state)
        return self.answer(hidden), state


model = Listener()
trainer = tl.Trainer(model, optimizer=tl.optim.adam(lr=5e-3), clip_norm=1.0)
losses = []
for epoch in trainer.epochs(10):
    state: torch.Tensor | None = None
    total = 0.0
    for heard, wanted in trainer.batches(pieces, shuffle=False):
        answer, state = model(heard, None if state is None else state.detach())  # here the gradient ends
        loss = nn.functional.mse_loss(answer, wanted)
        trainer.update(loss)
        total += loss.item()
    losses.append(total / len(pieces))
    if epoch % 2:
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}")
print("without the state, two of six moments cannot be known, and the loss stays above 0.33")
