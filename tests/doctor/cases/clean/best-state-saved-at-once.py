# expect: nothing
# about: state = {"model": model.state_dict()} of each improvement is written to a file at once; test loads the file
import os
import tempfile
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(900, 6)
y = (X[:, 0] * X[:, 1] > 0).long()
net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.Adam(net.parameters(), 5e-3)
best, path = 0.0, os.path.join(tempfile.mkdtemp(), "best.pt")
for ep in range(10):
    net.train()
    for i in torch.randperm(600).split(60):
        opt.zero_grad()
        nn.functional.cross_entropy(net(X[i]), y[i]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        acc = (net(X[600:750]).argmax(1) == y[600:750]).float().mean().item()
    checkpoint = {"model": net.state_dict(), "optimizer": opt.state_dict(), "epoch": ep}
    if acc > best:
        best = acc
        best_checkpoint = checkpoint
        torch.save(best_checkpoint, path)
net.load_state_dict(torch.load(path, weights_only=True)["model"])
net.eval()
with torch.no_grad():
    print(best, (net(X[750:]).argmax(1) == y[750:]).float().mean().item())
