# expect: nothing
# about: continual learning in tasks: heads come and go, old tasks are evaluated, a replay buffer of training samples, EWC-like penalty with saved weights
import torch
from torch import nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
rows = torch.randperm(len(X))
train, test = rows[:1400], rows[1400:]
body = nn.Sequential(nn.Linear(64, 48), nn.ReLU())
heads = nn.ModuleList(nn.Linear(48, 2) for _ in range(5))
opt = torch.optim.Adam([*body.parameters(), *heads.parameters()], 3e-3)
anchor, importance, memory = None, None, []
for task in range(5):
    sel = train[(y[train] // 2) == task]
    for ep in range(2):
        for i in sel[torch.randperm(len(sel))].split(28):
            loss = nn.functional.cross_entropy(heads[task](body(X[i])), y[i] % 2)
            if anchor is not None:
                loss = loss + 5 * sum((w * (p - a) ** 2).sum() for w, p, a in zip(importance, body.parameters(), anchor))
                old, mi = memory[torch.randint(0, len(memory), (1,)).item()]
                loss = loss + 0.3 * nn.functional.cross_entropy(heads[old](body(X[mi])), y[mi] % 2)
            opt.zero_grad()
            loss.backward()
            opt.step()
    memory.append((task, sel[:40]))
    opt.zero_grad()
    nn.functional.cross_entropy(heads[task](body(X[sel])), y[sel] % 2).backward()
    importance = [p.grad.detach() ** 2 for p in body.parameters()]
    anchor = [p.detach().clone() for p in body.parameters()]
    opt.zero_grad()
    with torch.no_grad():
        accs = []
        for t in range(task + 1):
            te = test[(y[test] // 2) == t]
            accs.append(round((heads[t](body(X[te])).argmax(1) == y[te] % 2).float().mean().item(), 3))
    print(task, accs)
