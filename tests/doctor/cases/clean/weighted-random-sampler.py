# expect: nothing
# about: WeightedRandomSampler with replacement on a rare class: batches are balanced, validation is as imbalanced as life
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler


def main(epochs=5, seed=0):
    torch.manual_seed(seed)
    d = load_digits()
    x = torch.tensor(d.data / 16.0, dtype=torch.float32)
    y = (torch.tensor(d.target) == 8).long()
    p = torch.randperm(len(x))
    x, y = x[p], y[p]
    train, val = TensorDataset(x[:1300], y[:1300]), TensorDataset(x[1300:], y[1300:])
    class_sample_count = torch.bincount(train.tensors[1])
    weight = 1.0 / class_sample_count.float()
    samples_weight = weight[train.tensors[1]]
    sampler = WeightedRandomSampler(samples_weight, num_samples=len(train), replacement=True)
    train_loader = DataLoader(train, batch_size=50, sampler=sampler)
    val_loader = DataLoader(val, batch_size=250)

    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)
    for epoch in range(epochs):
        model.train()
        for data, target in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data), target).backward()
            optimizer.step()
        model.eval()
        guess, truth = [], []
        with torch.no_grad():
            for data, target in val_loader:
                guess += model(data).argmax(1).tolist()
                truth += target.tolist()
        print(f"epoch {epoch} F1 of the rare class {f1_score(truth, guess):.3f}")


if __name__ == "__main__":
    main()
