# expect: nothing
# about: PBT: the worst member loads the live state dict of the best at that moment, and gets a perturbed rate
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(900, 8)
y = (X[:, 0] * X[:, 1] > 0).long()
members = []
for lr in (1e-3, 1e-2, 3e-2):
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    members.append([net, torch.optim.Adam(net.parameters(), lr), 0.0])
for rnd in range(5):
    for m in members:
        net, opt, _ = m
        for i in torch.randperm(700)[:350].split(50):
            opt.zero_grad()
            nn.functional.cross_entropy(net(X[i]), y[i]).backward()
            opt.step()
        with torch.no_grad():
            m[2] = (net(X[700:]).argmax(1) == y[700:]).float().mean().item()
    members.sort(key=lambda m: m[2])
    best_net, best_opt, best_score = members[-1]
    worst_net, worst_opt, _ = members[0]
    worst_net.load_state_dict(best_net.state_dict())
    worst_opt.param_groups[0]["lr"] = best_opt.param_groups[0]["lr"] * (0.8 if rnd % 2 else 1.2)
    print(rnd, best_score)
