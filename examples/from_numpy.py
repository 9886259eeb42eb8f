"""From numpy arrays to a trained model and back: split, normalise by the training part, fit, evaluate, predict."""

import numpy as np
from torch import nn

import trueloop as tl

tl.seed_all(0)
dice = np.random.default_rng(0)
x = dice.normal(loc=50.0, scale=[1.0, 10.0, 100.0], size=(600, 3)).astype(np.float32)  # three different scales
y = np.sin(x[:, :1] - 50.0) + (x[:, 1:2] - 50.0) / 10.0

train, val, test = tl.split((x, y), (0.6, 0.2, 0.2), seed=0)
normal = tl.Normalizer.fit(train[0])  # of the training part: the others are to be new to the model
train, val, test = ((normal(x), y) for x, y in (train, val, test))

model = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.adamw(lr=0.01), schedule=tl.schedules.cosine())
trainer.fit(train, val, epochs=60, batch_size=32, seed=0, evaluate_every=20)

loss = trainer.evaluate(test)["loss"]
predicted = trainer.predict(test[0]).numpy()  # the outputs in the order of the inputs
by_hand = float(((predicted - test[1]) ** 2).mean())
print(f"test loss {loss:.4f}; by hand {by_hand:.4f}; variance of the target {test[1].var():.4f}")
