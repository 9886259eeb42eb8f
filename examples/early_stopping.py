"""Early stopping: end when the validation loss has not improved for a while."""

import torch
from torch import nn

import trueloop as tl

tl.seed_all(0)
x = torch.randn(120, 20)
y = x[:, :1] + 0.5 * torch.randn(120, 1)  # few samples, many features, much noise: this will overfit
train, val = tl.split((x, y), (0.5, 0.5))

model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))
trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.adam(lr=3e-3))
stop = tl.observers.EarlyStop("loss", patience=5, min_delta=1e-3)
result = trainer.fit(train, val, epochs=200, batch_size=16, observers=[stop], progress=False)

losses = [event.metrics["loss"] for event in result.history if isinstance(event, tl.EvalEnded)]
print("validation loss:", ", ".join(f"{loss:.3f}" for loss in losses))
print(f"ended after {result.epochs} of 200 epochs: {result.reason}")
