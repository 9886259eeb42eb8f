# expect: nothing
# about: an (N, N) matrix from (N, 1) - (N,) on purpose: a ranking loss over all pairs
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(500, 7)
relevance = x @ torch.randn(7) + 0.1 * torch.randn(500)
ranker = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 1))
opt = torch.optim.Adam(ranker.parameters(), lr=5e-3)
for step in range(100):
    i = torch.randint(0, 400, (40,))
    s = ranker(x[i])  # (N, 1)
    diff = s - s.squeeze(1)  # all pairs
    wins = (relevance[i].unsqueeze(1) > relevance[i]).float()
    loss = nn.functional.binary_cross_entropy_with_logits(diff, wins)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        with torch.no_grad():
            t = ranker(x[400:]).squeeze(1)
            tau = ((t[:50] > t[50:]) == (relevance[400:450] > relevance[450:])).float().mean()
        print(step, loss.item(), tau.item())
