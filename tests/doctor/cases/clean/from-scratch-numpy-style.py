# expect: nothing
# about: two-layer net from scratch: raw tensors, .data updates, grad.data.zero_() after each, momentum by hand
# allow: no-validation
import torch
from sklearn.datasets import load_iris

torch.manual_seed(0)
X, y = load_iris(return_X_y=True)
X, y = torch.tensor(X).float(), torch.tensor(y)
p = torch.randperm(150)
X, y = X[p], y[p]
X = (X - X[:110].mean(0)) / X[:110].std(0)
w1 = (torch.randn(4, 16) * 0.5).requires_grad_()
b1 = torch.zeros(16, requires_grad=True)
w2 = (torch.randn(16, 3) * 0.25).requires_grad_()
b2 = torch.zeros(3, requires_grad=True)
params = [w1, b1, w2, b2]
velocity = [torch.zeros_like(q) for q in params]
forward = lambda x: torch.relu(x @ w1 + b1) @ w2 + b2
for epoch in range(12):
    for k in range(0, 110, 11):
        logits = forward(X[k : k + 11])
        loss = -logits.log_softmax(1)[torch.arange(11), y[k : k + 11]].mean()
        loss.backward()
        for q, v in zip(params, velocity):
            v.mul_(0.8).add_(q.grad.data)
            q.data -= 0.05 * v
            q.grad.data.zero_()
with torch.no_grad():
    print((forward(X[110:]).argmax(1) == y[110:]).float().mean().item())
