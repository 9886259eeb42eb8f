"""A GAN: two losses and two optimizers a step, in your own loop."""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import trueloop as tl

tl.seed_all(0)
real = 3.0 + 0.5 * torch.randn(4096, 1)  # what the generator is to imitate
generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
critic = nn.Sequential(nn.Linear(1, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

trainer = tl.Trainer(
    nn.ModuleDict({"generator": generator, "critic": critic}),
    optimizer={  # each factory trains the submodule of its name
        "generator": tl.optim.adam(lr=1e-3, betas=(0.5, 0.9)),
        "critic": tl.optim.adam(lr=1e-3, betas=(0.5, 0.9)),
    },
)


def imitate(samples: int) -> torch.Tensor:
    fake: torch.Tensor = generator(torch.randn(samples, 4))
    return fake


print(f"before: mean {imitate(1000).mean():.2f}, spread {imitate(1000).std():.2f}")
for _epoch in trainer.epochs(20):
    for batch in trainer.batches(real, batch_size=64):
        ones, zeros = torch.ones(len(batch), 1), torch.zeros(len(batch), 1)
        fake = imitate(len(batch))
        trainer.update(bce(critic(batch), ones) + bce(critic(fake.detach()), zeros), optimizer="critic")
        trainer.update(bce(critic(fake), ones), optimizer="generator")

with torch.no_grad():
    fake = imitate(1000)
print(f"after: mean {fake.mean():.2f}, spread {fake.std():.2f} (the real one: mean 3, spread 0.5)")
