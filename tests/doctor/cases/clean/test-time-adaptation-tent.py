# expect: nothing
# about: TENT: after supervised training, BatchNorm's affine parameters adapt to shifted test inputs by entropy, without labels
import copy
import torch
from torch import nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(net.parameters(), 3e-3)
for ep in range(3):
    net.train()
    for i in torch.randperm(1400).split(50):
        opt.zero_grad()
        nn.functional.cross_entropy(net(X[i]), y[i]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        print(ep, (net(X[1400:]).argmax(1) == y[1400:]).float().mean().item())
shifted, yt = X[1400:] * 0.6 + 0.3, y[1400:]
with torch.no_grad():
    print("before", (net(shifted).argmax(1) == yt).float().mean().item())
tent = copy.deepcopy(net)
tent.train()
tent.requires_grad_(False)
for m in tent.modules():
    if isinstance(m, nn.BatchNorm1d):
        m.requires_grad_(True)
        m.track_running_stats = False
        m.running_mean = m.running_var = None
aopt = torch.optim.Adam([p for p in tent.parameters() if p.requires_grad], lr=1e-3)
hits = 0
for k in range(0, 397, 50):
    logits = tent(shifted[k : k + 50])
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    aopt.zero_grad()
    entropy.backward()
    aopt.step()
    hits += (logits.argmax(1) == yt[k : k + 50]).sum().item()
print("adapted", hits / 397)
