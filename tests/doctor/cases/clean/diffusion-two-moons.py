# expect: nothing
# about: denoising diffusion on two moons: the target is random noise, the loss stays near its floor, every batch has new noise
import torch
import torch.nn.functional as F
from sklearn.datasets import make_moons
from torch import nn

torch.manual_seed(0)
T = 50
betas = torch.linspace(1e-4, 0.2, T)
alpha_bar = torch.cumprod(1 - betas, 0)


class Denoiser(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.time = nn.Embedding(T, width)
        self.inp = nn.Linear(2, width)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, 2)

    def forward(self, x, t):
        h = F.silu(self.inp(x) + self.time(t))
        return self.out(h + F.silu(self.mid(h)))


def diffusion_loss(model, x0, generator=None):
    t = torch.randint(0, T, (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    ab = alpha_bar[t].unsqueeze(1)
    return F.mse_loss(model(ab.sqrt() * x0 + (1 - ab).sqrt() * noise, t), noise)


@torch.no_grad()
def sample(model, n):
    x = torch.randn(n, 2)
    for t in reversed(range(T)):
        eps = model(x, torch.full((n,), t))
        x = (x - betas[t] / (1 - alpha_bar[t]).sqrt() * eps) / (1 - betas[t]).sqrt()
        if t:
            x = x + betas[t].sqrt() * torch.randn_like(x)
    return x


moons = torch.tensor(make_moons(1600, noise=0.05, random_state=0)[0], dtype=torch.float32)
train, val = moons[:1280], moons[1280:]
mean, std = train.mean(0), train.std(0)
train, val = (train - mean) / std, (val - mean) / std
model = Denoiser()
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
for epoch in range(12):
    model.train()
    for idx in torch.randperm(len(train)).split(128):
        loss = diffusion_loss(model, train[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        val_loss = diffusion_loss(model, val, torch.Generator().manual_seed(7)).item()
    if epoch % 4 == 3:
        print(f"epoch {epoch + 1} val {val_loss:.4f} spread of samples {sample(model, 200).std(0).tolist()}")
