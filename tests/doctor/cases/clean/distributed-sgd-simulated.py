# expect: nothing
# about: data-parallel by hand: replicas run backward, their gradients are averaged into the main model's p.grad, replicas get its weights
import copy
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(1000, 10)
y = (X[:, :3].sum(1) > 0).long()
main = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 2))
replicas = [copy.deepcopy(main) for _ in range(3)]
opt = torch.optim.SGD(main.parameters(), 0.2, momentum=0.9)
for step in range(70):
    for r in replicas:
        r.load_state_dict(main.state_dict())
        r.zero_grad()
        i = torch.randint(0, 800, (32,))
        nn.functional.cross_entropy(r(X[i]), y[i]).backward()
    for ps in zip(main.parameters(), *[r.parameters() for r in replicas]):
        ps[0].grad = torch.stack([p.grad for p in ps[1:]]).mean(0)
    opt.step()
    if step % 20 == 0:
        with torch.no_grad():
            print(step, (main(X[800:]).argmax(1) == y[800:]).float().mean().item())
