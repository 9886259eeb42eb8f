# expect: best-weights-not-copied [run,source]
# about: best_model = model keeps a reference; by the end it has the last epoch's weights
# allow: last-weights-kept
# allow: overfitting
import torch
from sklearn.datasets import make_classification
from torch import nn


def evaluate(net, x, y):
    net.eval()
    with torch.no_grad():
        return nn.functional.cross_entropy(net(x), y).item()


def train(net, x, y, xv, yv, epochs=20):
    opt = torch.optim.Adam(net.parameters(), lr=1.5e-3)
    best, best_model, best_epoch = float("inf"), None, 0
    for epoch in range(epochs):
        net.train()
        for i in torch.randperm(len(x)).split(16):
            opt.zero_grad()
            nn.functional.cross_entropy(net(x[i]), y[i]).backward()
            opt.step()
        val = evaluate(net, xv, yv)
        if val < best:
            best, best_epoch = val, epoch
            best_model = net
    return best_model, best, best_epoch


torch.manual_seed(0)
X, y = make_classification(700, 25, n_informative=4, flip_y=0.3, random_state=1)
X, y = torch.tensor(X).float(), torch.tensor(y)
net = nn.Sequential(nn.Linear(25, 128), nn.ReLU(), nn.Linear(128, 2))
best_model, best, at = train(net, X[:160], y[:160], X[160:430], y[160:430])
print(f"best val {best:.4f} at epoch {at}; the kept model has val {evaluate(best_model, X[160:430], y[160:430]):.4f}, test {evaluate(best_model, X[430:], y[430:]):.4f}")
