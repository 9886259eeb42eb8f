# expect: nothing
# about: both players stand in one optimizer; gradients set to None keep the other player still while one of them steps
# allow: no-validation
import torch
from torch import nn

torch.manual_seed(3)


def mlp(*sizes):
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers[:-1])


class Pair(nn.Module):
    """Generator and discriminator share one class embedding, as class-conditional GANs do."""

    def __init__(self, classes=3):
        super().__init__()
        self.label_g = nn.Embedding(classes, 4)
        self.label_d = nn.Embedding(classes, 4)
        self.gen = mlp(8, 32, 2)
        self.dis = mlp(6, 32, 1)

    def fake(self, labels):
        return self.gen(torch.cat([torch.randn(len(labels), 4), self.label_g(labels)], 1))

    def score(self, x, labels):
        return self.dis(torch.cat([x, self.label_d(labels)], 1))


pair = Pair()
g_params = [*pair.gen.parameters(), *pair.label_g.parameters()]
d_params = [*pair.dis.parameters(), *pair.label_d.parameters()]
opt = torch.optim.Adam([{"params": g_params, "lr": 5e-4}, {"params": d_params, "lr": 1e-3}], betas=(0.0, 0.99))
centres = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
softplus = nn.functional.softplus
for step in range(200):
    labels = torch.randint(0, 3, (48,))
    real = centres[labels] + 0.1 * torch.randn(48, 2)

    opt.zero_grad(set_to_none=True)
    fakes = pair.fake(labels).detach()
    d_loss = softplus(-pair.score(real, labels)).mean() + softplus(pair.score(fakes, labels)).mean()
    d_loss.backward()
    opt.step()  # the generator's gradients are None: Adam passes over it

    opt.zero_grad(set_to_none=True)
    for p in d_params:
        p.requires_grad_(False)
    g_loss = softplus(-pair.score(pair.fake(labels), labels)).mean()
    g_loss.backward()
    opt.step()
    for p in d_params:
        p.requires_grad_(True)
    if step % 40 == 0:
        print(f"{step:4d}  d {d_loss.item():.3f}  g {g_loss.item():.3f}")
