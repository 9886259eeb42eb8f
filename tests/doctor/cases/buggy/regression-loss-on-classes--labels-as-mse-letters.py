# expect: regression-loss-on-classes [run]
# about: wine cultivars 0, 1, 2 (no order) fitted by nn.MSELoss with y.view(-1, 1).float(); no accuracy, no word of classes
import torch
from sklearn.datasets import load_wine
from torch import nn

torch.manual_seed(0)
data = load_wine()
order = torch.randperm(178)
features = torch.tensor(data.data, dtype=torch.float32)[order]
features = (features - features[:140].mean(0)) / features[:140].std(0)
cultivar = torch.tensor(data.target).view(-1, 1)[order]
net = nn.Sequential(nn.Linear(13, 20), nn.ReLU(), nn.Linear(20, 1))
mse = nn.MSELoss()
adam = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(20):
    for k in torch.randperm(140).split(28):
        loss = mse(net(features[k]), cultivar[k].float())
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        hit = (net(features[140:]).round() == cultivar[140:]).float().mean()
    print(epoch, loss.item(), hit.item())
