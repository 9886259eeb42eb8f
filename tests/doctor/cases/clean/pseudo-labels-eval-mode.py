# expect: nothing
# about: each step the same model is put in eval mode to label unlabelled data, then back in train mode; labels depend on the model
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
X = torch.tensor(d.data / 16.0, dtype=torch.float32)
Y = torch.tensor(d.target)
perm = torch.randperm(len(X))
labelled, unlabelled, held = perm[:300], perm[300:1400], perm[1400:]

net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)


@torch.no_grad()
def guess(batch):
    net.eval()
    p = F.softmax(net(batch), dim=1)
    net.train()
    return p.max(1)


net.train()
for it in range(1, 181):
    lab = labelled[torch.randint(0, len(labelled), (32,))]
    unl = unlabelled[torch.randint(0, len(unlabelled), (64,))]
    conf, pseudo = guess(X[unl])
    weak = X[unl] + 0.1 * torch.randn(64, 64)
    logits = net(torch.cat([X[lab], weak]))
    sup = F.cross_entropy(logits[:32], Y[lab])
    unsup = (F.cross_entropy(logits[32:], pseudo, reduction="none") * (conf > 0.9).float()).mean()
    opt.zero_grad()
    (sup + min(1.0, it / 60) * unsup).backward()
    opt.step()
    if it % 45 == 0:
        net.eval()
        with torch.no_grad():
            acc = (net(X[held]).argmax(1) == Y[held]).float().mean().item()
        net.train()
        print(f"it {it} sup {sup.item():.3f} unsup {unsup.item():.3f} held-out acc {acc:.3f}")
