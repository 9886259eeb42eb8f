"""Observers of your own: anything that takes an event, and may reply Stop."""

import torch
from torch import nn

import trueloop as tl

tl.seed_all(0)
x = torch.randn(1280, 3)
y = (x[:, :1] * x[:, 1:2]).sign().clamp(min=0.0)  # are the first two of one sign?


class Curve:
    """Keeps every loss. A loss stays a tensor until someone reads it, so that the steps wait for nobody."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []

    def __call__(self, event: tl.Event) -> None:
        match event:
            case tl.StepEnded(loss=loss):
                self.losses.append(loss)
            case tl.EpochEnded(epoch=epoch) if epoch % 5 == 4:
                last = torch.stack(self.losses[-32:]).mean()
                print(f"epoch {epoch + 1}: loss {last:.3f} over the last 32 steps")


def good_enough(event: tl.Event) -> tl.Stop | None:
    match event:
        case tl.EvalEnded(metrics={"loss": loss}) if loss < 0.1:
            return tl.Stop(f"the loss, {loss:.3f}, is good enough")
    return None


model = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
trainer = tl.Trainer(model, nn.BCEWithLogitsLoss(), tl.optim.adam(lr=0.01))
curve = Curve()
train, val = (x[:1024], y[:1024]), (x[1024:], y[1024:])
result = trainer.fit(train, val, epochs=60, batch_size=32, observers=[curve, good_enough], progress=False)
print(f"ended after {result.epochs} epochs: {result.reason}")
