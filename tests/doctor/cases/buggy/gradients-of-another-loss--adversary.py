# expect: gradients-of-another-loss [run,source]
# about: a privacy adversary steps on its own loss's gradients plus those that the main loss (minus the adversary's) left in it
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
secret = (x[:, :32].sum(1) > x[:, 32:].sum(1)).long()
encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
task_head = nn.Linear(32, 10)
adversary = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))
main_opt = torch.optim.Adam([*encoder.parameters(), *task_head.parameters()], lr=2e-3)
adv_opt = torch.optim.Adam(adversary.parameters(), lr=2e-3)
ce = nn.CrossEntropyLoss()
for epoch in range(6):
    for b in torch.randperm(1400).split(50):
        main_opt.zero_grad()
        adv_opt.zero_grad()
        h = encoder(x[b])
        main = ce(task_head(h), y[b]) - 0.5 * ce(adversary(h), secret[b])
        main.backward()
        main_opt.step()

        adv = ce(adversary(encoder(x[b]).detach()), secret[b])
        adv.backward()
        adv_opt.step()
    with torch.no_grad():
        h = encoder(x[1400:])
        print(epoch, "task", (task_head(h).argmax(1) == y[1400:]).float().mean().item(), "adversary", (adversary(h).argmax(1) == secret[1400:]).float().mean().item())
