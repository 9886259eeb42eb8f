# expect: nothing
# about: a recommender: star ratings 1 … 5 as float targets, MSE; "class" and "accuracy" stand in the script for other reasons
import torch
from torch import nn


class MatrixFactorisation(nn.Module):
    """Ratings have five classes of stars, but they are an ordinal scale: regression, RMSE."""

    def __init__(self, users, movies, k=8):
        super().__init__()
        self.u, self.m = nn.Embedding(users, k), nn.Embedding(movies, k)
        self.ub, self.mb = nn.Embedding(users, 1), nn.Embedding(movies, 1)
        self.mean = nn.Parameter(torch.tensor(3.0))
        for e in (self.u, self.m):
            nn.init.normal_(e.weight, std=0.1)

    def forward(self, u, m):
        return (self.u(u) * self.m(m)).sum(1) + self.ub(u)[:, 0] + self.mb(m)[:, 0] + self.mean


torch.manual_seed(0)
users, movies = torch.randint(0, 60, (4000,)), torch.randint(0, 40, (4000,))
taste, kind = torch.randn(60, 3), torch.randn(40, 3)
stars = (3 + (taste[users] * kind[movies]).sum(1)).round().clamp(1, 5)
model = MatrixFactorisation(60, 40)
opt = torch.optim.Adam(model.parameters(), lr=2e-2)
for epoch in range(5):
    for i in torch.randperm(3200).split(128):
        loss = nn.functional.mse_loss(model(users[i], movies[i]), stars[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        pred = model(users[3200:], movies[3200:])
        rmse = nn.functional.mse_loss(pred, stars[3200:]).sqrt()
        accuracy = (pred.round().clamp(1, 5) == stars[3200:]).float().mean()
    print(epoch, "rmse", rmse.item(), "accuracy of the rounded stars", accuracy.item())
