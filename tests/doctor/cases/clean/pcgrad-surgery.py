# expect: nothing
# about: gradient surgery: backward per task with zero_grad between, gradients kept aside, projected and written back before the step
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(800, 8)
t1, t2 = X[:, 0] + X[:, 1], X[:, 0] - X[:, 2] ** 2
net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.Adam(net.parameters(), 4e-3)


def flat(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


for ep in range(6):
    for i in torch.randperm(700).split(50):
        out = net(X[i])
        losses = [nn.functional.mse_loss(out[:, 0], t1[i]), nn.functional.mse_loss(out[:, 1], t2[i])]
        grads = []
        for k, l in enumerate(losses):
            opt.zero_grad()
            l.backward(retain_graph=k == 0)
            grads.append(flat(net).clone())
        a, b = grads
        dot = a @ b
        if dot < 0:
            a, b = a - dot / b.norm() ** 2 * b, b - dot / a.norm() ** 2 * a
        total, k = a + b, 0
        for p in net.parameters():
            p.grad = total[k : k + p.numel()].view_as(p).clone()
            k += p.numel()
        opt.step()
    with torch.no_grad():
        print(ep, nn.functional.mse_loss(net(X[700:])[:, 0], t1[700:]).item())
