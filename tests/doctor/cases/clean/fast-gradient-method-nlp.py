# expect: nothing
# about: Chinese-NLP FGM trick: backward, perturb embeddings, second backward ADDS to the gradients, restore, step, zero
import torch
from torch import nn


class FGM:
    def __init__(self, model):
        self.model, self.backup = model, {}

    def attack(self, eps=0.5):
        for n, p in self.model.named_parameters():
            if "emb" in n and p.grad is not None:
                self.backup[n] = p.data.clone()
                norm = p.grad.norm()
                if norm != 0:
                    p.data.add_(eps * p.grad / norm)

    def restore(self):
        for n, p in self.model.named_parameters():
            if n in self.backup:
                p.data = self.backup[n]
        self.backup = {}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(40, 16)
        self.fc = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x):
        return self.fc(self.emb(x).mean(1))


torch.manual_seed(0)
ids = torch.randint(0, 40, (900, 8))
lab = (ids < 8).sum(1).clamp(max=2)
net = Net()
fgm = FGM(net)
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
for ep in range(6):
    for i in torch.randperm(800).split(50):
        loss = nn.functional.cross_entropy(net(ids[i]), lab[i])
        loss.backward()
        fgm.attack()
        adv = nn.functional.cross_entropy(net(ids[i]), lab[i])
        adv.backward()
        fgm.restore()
        opt.step()
        net.zero_grad()
    with torch.no_grad():
        print(ep, loss.item(), (net(ids[800:]).argmax(1) == lab[800:]).float().mean().item())
