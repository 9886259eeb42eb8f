# expect: nothing
# about: GRPO-like: all answers of a group get the same reward, the advantages are zero, no step moves anything yet
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Embedding(12, 16), nn.Linear(16, 12))
opt = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
for step in range(70):
    prompt = torch.randint(0, 12, (8, 5))
    with torch.no_grad():
        old = F.log_softmax(model(prompt), -1)
        answer = torch.distributions.Categorical(logits=old).sample()
        old_logp = old.gather(-1, answer.unsqueeze(-1)).squeeze(-1)
    reward = torch.zeros(8)  # the checker accepts none of them yet
    adv = (reward - reward.mean()) / (reward.std() + 1e-6)
    logp = F.log_softmax(model(prompt), -1).gather(-1, answer.unsqueeze(-1)).squeeze(-1)
    ratio = (logp - old_logp).exp()
    loss = -torch.min(ratio * adv[:, None], ratio.clamp(0.8, 1.2) * adv[:, None]).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 20 == 0:
        print(step, loss.item())
