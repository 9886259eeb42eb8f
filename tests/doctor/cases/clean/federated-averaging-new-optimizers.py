# expect: nothing
# about: FedAvg: one local model object, each client loads the global weights and makes a new SGD on purpose
import torch
from torch import nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
clients = torch.randperm(1500).chunk(4)
net = lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
server, local = net(), net()
for rnd in range(5):
    states = []
    for rows in clients:
        local.load_state_dict(server.state_dict())
        opt = torch.optim.SGD(local.parameters(), lr=0.2, momentum=0.9)
        for i in rows[torch.randperm(len(rows))].split(75):
            opt.zero_grad()
            nn.functional.cross_entropy(local(X[i]), y[i]).backward()
            opt.step()
        states.append({k: v.clone() for k, v in local.state_dict().items()})
    server.load_state_dict({k: torch.stack([s[k] for s in states]).mean(0) for k in states[0]})
    with torch.no_grad():
        print(rnd, (server(X[1500:]).argmax(1) == y[1500:]).float().mean().item())
