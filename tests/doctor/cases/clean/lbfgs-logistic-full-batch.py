# expect: nothing
# about: L-BFGS with a strong Wolfe search: one step evaluates the closure many times on the same full batch
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
rs = np.random.RandomState(0)
order = rs.permutation(len(X))
train_idx, test_idx = order[:400], order[400:]
mu, sigma = X[train_idx].mean(axis=0), X[train_idx].std(axis=0)
A = torch.from_numpy((X[train_idx] - mu) / sigma)
b = torch.from_numpy(y[train_idx]).double().unsqueeze(1)
A_test = torch.from_numpy((X[test_idx] - mu) / sigma)
b_test = torch.from_numpy(y[test_idx]).double().unsqueeze(1)

logreg = nn.Linear(30, 1)
optimizer = torch.optim.LBFGS(logreg.parameters(), lr=1, max_iter=10, history_size=10, line_search_fn="strong_wolfe")
bce = nn.BCEWithLogitsLoss()
l2 = 1e-2
evals = 0


def closure():
    global evals
    evals += 1
    optimizer.zero_grad()
    loss = bce(logreg(A), b) + l2 * logreg.weight.pow(2).sum()
    loss.backward()
    return loss


for step in range(6):
    loss = optimizer.step(closure)
    with torch.no_grad():
        test = bce(logreg(A_test), b_test).item()
        acc = ((logreg(A_test) > 0).double() == b_test).double().mean().item()
    print(f"step {step} objective {loss.item():.6f} test loss {test:.4f} acc {acc:.3f} closures {evals}")
