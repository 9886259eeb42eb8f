# expect: nothing
# about: SparseAdam for embeddings with sparse gradients, Adam for the rest; in each batch most rows of the tables get none
import torch
from torch import nn


class Recommender(nn.Module):
    def __init__(self, users, items, dim=8):
        super().__init__()
        self.user = nn.Embedding(users, dim, sparse=True)
        self.item = nn.Embedding(items, dim, sparse=True)
        nn.init.normal_(self.user.weight, std=0.3)
        nn.init.normal_(self.item.weight, std=0.3)
        self.mlp = nn.Sequential(nn.Linear(3 * dim, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, u, i):
        a, b = self.user(u), self.item(i)
        return self.mlp(torch.cat([a, b, a * b], 1)).squeeze(1)


gen = torch.Generator().manual_seed(0)
torch.manual_seed(0)
U, I, N = 120, 60, 5000
taste, trait = torch.randn(U, 3, generator=gen), torch.randn(I, 3, generator=gen)
u, i = torch.randint(0, U, (N,), generator=gen), torch.randint(0, I, (N,), generator=gen)
pairs = torch.unique(torch.stack([u, i], 1), dim=0)
pairs = pairs[torch.randperm(len(pairs), generator=gen)]
u, i = pairs.t()
rating = (taste[u] * trait[i]).sum(1) / 1.7 + 0.2 * torch.randn(len(u), generator=gen)
cut = int(len(u) * 0.8)
model = Recommender(U, I)
sparse_opt = torch.optim.SparseAdam([model.user.weight, model.item.weight], lr=1e-2)
dense_opt = torch.optim.Adam(model.mlp.parameters(), lr=5e-3)
for epoch in range(6):
    model.train()
    for b in torch.randperm(cut).split(64):
        loss = nn.functional.mse_loss(model(u[b], i[b]), rating[b])
        sparse_opt.zero_grad()
        dense_opt.zero_grad()
        loss.backward()
        sparse_opt.step()
        dense_opt.step()
    model.eval()
    with torch.no_grad():
        val = nn.functional.mse_loss(model(u[cut:], i[cut:]), rating[cut:]).item()
    print(f"epoch {epoch} val mse {val:.3f} of variance {rating[cut:].var().item():.3f}")
