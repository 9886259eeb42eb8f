# expect: optimizer-recreated [run,source]
# about: train_one_epoch makes a new Adam each time it is called: moments and bias correction start again every epoch
import torch
from sklearn.datasets import load_digits
from torch import nn, optim


def train_one_epoch(model, x, y, lr=3e-3):
    optimizer = optim.Adam(model.parameters(), lr=lr)
    model.train()
    for idx in torch.randperm(len(x)).split(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
        loss.backward()
        optimizer.step()
    return loss.item()


@torch.no_grad()
def test(model, x, y):
    model.eval()
    return (model(x).argmax(1) == y).float().mean().item()


if __name__ == "__main__":
    torch.manual_seed(0)
    d = load_digits()
    x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 10))
    for epoch in range(8):
        loss = train_one_epoch(model, x[:1400], y[:1400])
        print(f"{epoch}: loss {loss:.4f} acc {test(model, x[1400:], y[1400:]):.3f}")
