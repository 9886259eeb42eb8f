# expect: learning-rate-too-high [run]
# about: SGD with momentum at a rate of 4 on a tanh classifier: the loss swings far above its start and back
# allow: saturated-activations
# allow: not-learning
# allow: exploding-gradients
# allow: input-ignored
# allow: vanishing-gradients
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
x = x - x[:1400].mean(0)
net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
opt = torch.optim.SGD(net.parameters(), lr=4.0, momentum=0.9)
losses = []
while len(losses) < 140:
    for b in torch.randperm(1400).split(50):
        loss = nn.functional.cross_entropy(net(x[b]), y[b])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    with torch.no_grad():
        val = nn.functional.cross_entropy(net(x[1400:]), y[1400:]).item()
    print(len(losses), "start", round(losses[0], 2), "largest of the epoch", round(max(losses[-28:]), 2), "val", round(val, 2))
