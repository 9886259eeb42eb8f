"""One loop, three ways in: fit, the stream of events, and your own loop end with the same bits."""

import torch
from torch import nn

import trueloop as tl

x = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
y = x.sum(1, keepdim=True)


def new_trainer() -> tl.Trainer:
    tl.seed_all(0)  # the same first weights, and the same order of the data
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))
    schedule = tl.schedules.cosine()
    return tl.Trainer(model, nn.MSELoss(), tl.optim.adam(lr=0.01), schedule=schedule, clip_norm=1.0, accumulate=2)


first = new_trainer()
result = first.fit((x, y), epochs=5, batch_size=8, progress=False)

second = new_trainer()
for event in second.train((x, y), epochs=5, batch_size=8):
    match event:
        case tl.EpochEnded(epoch=epoch, loss=loss):
            print(f"epoch {epoch + 1}: loss {loss:.4f}")

third = new_trainer()
for _epoch in third.epochs(5):
    for inputs, targets in third.batches((x, y), batch_size=8):
        third.update(nn.functional.mse_loss(third.model(inputs), targets))

weights = [list(trainer.model.parameters()) for trainer in (first, second, third)]
same = all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*weights, strict=True))
print(f"{result.steps} steps each; the same bits: {same}")
