# expect: nothing
# about: torch.func training: no backward and no optimizer object at all, weights live in a dict; the module's own parameters stay as they were
import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.func import functional_call, grad, vmap

torch.manual_seed(0)
wine = load_wine()
X, y = torch.tensor(wine.data, dtype=torch.float32), torch.tensor(wine.target)
perm = torch.randperm(178)
tr, te = perm[:132], perm[132:]
mean, std = X[tr].mean(0), X[tr].std(0)
X = (X - mean) / std

net = nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 3))
params = {k: v.detach().clone() for k, v in net.named_parameters()}


def sample_loss(params, x, t):
    logits = functional_call(net, params, (x.unsqueeze(0),))
    return nn.functional.cross_entropy(logits, t.unsqueeze(0))


per_sample = vmap(grad(sample_loss), in_dims=(None, 0, 0))
clip, noise, lr = 1.0, 0.01, 0.5
for epoch in range(15):
    for idx in tr[torch.randperm(132)].split(22):
        grads = per_sample(params, X[idx], y[idx])
        norms = torch.sqrt(sum(g.flatten(1).square().sum(1) for g in grads.values()))
        factor = (clip / (norms + 1e-6)).clamp(max=1.0)
        for k, g in grads.items():
            g = (g * factor.view(-1, *[1] * (g.dim() - 1))).mean(0)
            params[k] = params[k] - lr * (g + noise * torch.randn_like(g) / len(idx))
    if epoch % 5 == 4:
        out = functional_call(net, params, (X[te],))
        print(epoch, "test accuracy", (out.argmax(1) == y[te]).float().mean().item())
