# expect: loss-term-without-model [run]
# about: denoising autoencoder: the second term compares the noisy input with the clean one in place of the output
import torch
from torch import nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
X = torch.tensor(load_digits().data / 16).float()
ae = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 64))
opt = torch.optim.Adam(ae.parameters(), 3e-3)
for ep in range(5):
    for i in torch.randperm(1500).split(75):
        clean = X[i]
        noisy = clean + 0.2 * torch.randn_like(clean)
        out = ae(noisy)
        rec = nn.functional.mse_loss(out, clean)
        sharp = nn.functional.l1_loss(noisy, clean)
        loss = rec + 0.5 * sharp
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        print(ep, rec.item(), nn.functional.mse_loss(ae(X[1500:]), X[1500:]).item())
