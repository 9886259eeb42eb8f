# expect: missing-optimizer-step [run,source]
# about: encoder and decoder have an optimizer each; both are zeroed, only the encoder's steps
# allow: parameters-not-optimized
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
x = torch.tensor(load_digits().data / 16.0, dtype=torch.float32)
encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))
encoder_optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
decoder_optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
criterion = nn.MSELoss()


def train_step(batch):
    encoder_optimizer.zero_grad()
    decoder_optimizer.zero_grad()
    loss = criterion(decoder(encoder(batch)), batch)
    loss.backward()
    encoder_optimizer.step()
    return loss.item()


for epoch in range(5):
    for idx in torch.randperm(1400).split(50):
        train_step(x[idx])
    with torch.no_grad():
        print(epoch, "val mse", round(criterion(decoder(encoder(x[1400:])), x[1400:]).item(), 4))
