# expect: nothing
# about: pain levels 0 … 4 by MSE, an "accuracy" of rounded predictions beside it; levels have an order
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(900, 8)
pain_level = (1.0 * (x @ torch.randn(8) * 0.3) + 2).round().clamp(0, 4)
model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 1), nn.Flatten(0))
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(8):
    for i in torch.randperm(720).split(48):
        loss = nn.functional.mse_loss(model(x[i]), pain_level[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        accuracy = (model(x[720:]).round() == pain_level[720:]).float().mean()
    print(epoch, loss.item(), "accuracy", accuracy.item())
