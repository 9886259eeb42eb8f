# expect: nothing
# about: Reptile in one model object: weights saved, an inner Adam made anew per task on purpose, weights interpolated back
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
for iteration in range(30):
    phase = torch.rand(1) * 3
    x = torch.rand(40, 1) * 6 - 3
    y = torch.sin(x + phase)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    inner = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.0, 0.999))
    for _ in range(5):
        inner.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        inner.step()
    after = model.state_dict()
    model.load_state_dict({k: before[k] + 0.3 * (after[k] - before[k]) for k in before})
    if iteration % 10 == 0:
        print(iteration, loss.item())
