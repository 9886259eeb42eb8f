# expect: nothing
# about: MarginRankingLoss on pairs that are soon all in order: 0 and no gradient at the end
import torch
from torch import nn

torch.manual_seed(0)
w = torch.randn(5)
items = torch.randn(400, 5)
quality = items @ w
scorer = nn.Sequential(nn.Linear(5, 1))
loss_fn = nn.MarginRankingLoss(margin=0.0)
opt = torch.optim.Adam(scorer.parameters(), lr=0.05)
for epoch in range(10):
    total = 0.0
    for _ in range(12):
        a, b = torch.randint(0, 320, (2, 32))
        order = torch.sign(quality[a] - quality[b] + 1e-9)
        loss = loss_fn(scorer(items[a]).squeeze(-1), scorer(items[b]).squeeze(-1), order)
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item()
    with torch.no_grad():
        s = scorer(items[320:]).squeeze(-1)
        agree = ((s[:40] > s[40:]) == (quality[320:360] > quality[360:])).float().mean()
    print(epoch, total / 12, agree.item())
