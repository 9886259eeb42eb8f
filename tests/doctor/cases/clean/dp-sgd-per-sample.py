# expect: nothing
# about: DP-SGD: per-sample gradients by vmap, clipped, noised, written to p.grad; the optimizer never sees a backward
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from sklearn.datasets import load_breast_cancer

torch.manual_seed(0)
d = load_breast_cancer()
X, y = torch.tensor(d.data).float(), torch.tensor(d.target)
p0 = torch.randperm(len(X))
X, y = X[p0], y[p0]
X = (X - X[:450].mean(0)) / X[:450].std(0)
net = nn.Linear(30, 2)
opt = torch.optim.SGD(net.parameters(), lr=0.5)


def loss_one(params, x, t):
    return nn.functional.cross_entropy(functional_call(net, params, (x[None],)), t[None])


per_sample = vmap(grad(loss_one), in_dims=(None, 0, 0))
for ep in range(8):
    for i in torch.randperm(450).split(45):
        params = {k: v.detach() for k, v in net.named_parameters()}
        gs = per_sample(params, X[i], y[i])
        norm = torch.stack([g.flatten(1).norm(dim=1) for g in gs.values()]).norm(dim=0)
        scale = (1.0 / (norm + 1e-6)).clamp(max=1)
        for k, p in net.named_parameters():
            g = (gs[k] * scale.view(-1, *[1] * (gs[k].dim() - 1))).sum(0)
            p.grad = (g + 0.3 * torch.randn_like(g)) / len(i)
        opt.step()
        opt.zero_grad()
    with torch.no_grad():
        print(ep, (net(X[450:]).argmax(1) == y[450:]).float().mean().item())
