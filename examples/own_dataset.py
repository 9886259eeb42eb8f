"""A dataset of your own with random augmentation: the same bits for any number of worker processes."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import trueloop as tl


class NoisyWaves(Dataset[tuple[Tensor, Tensor]]):
    """Waves of two frequencies, with a new phase and new noise each time that one is asked for."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        label = index % 2
        time = torch.linspace(0, 6.28, 32) + 6.28 * torch.rand(1)  # drawn anew in each epoch
        return torch.sin((2 + label) * time) + 0.3 * torch.randn(32), torch.tensor(label)


def train(workers: int) -> tuple[nn.Module, tl.Result]:
    tl.seed_all(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2))
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.adamw(lr=0.01))
    return model, trainer.fit(NoisyWaves(), epochs=5, batch_size=20, seed=0, workers=workers, progress=False)


def main() -> tuple[bool, float]:
    alone, result = train(workers=0)
    helped, _ = train(workers=2)
    same = all(torch.equal(a, b) for a, b in zip(alone.parameters(), helped.parameters(), strict=True))
    print(f"loss {result.loss:.3f}; the same bits with 0 and with 2 workers: {same}")
    return same, result.loss


if __name__ == "__main__":  # worker processes may import this file
    main()
