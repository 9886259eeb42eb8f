# expect: train-method-overridden [run,source]
# about: the module's own train() runs the training, so nothing can put the model back in train mode after eval
# allow: training-in-eval-mode
import torch
from sklearn.datasets import load_digits
from torch import nn


class Classifier(nn.Module):
    def __init__(self, lr=3e-3):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, 10))
        self.opt = torch.optim.Adam(self.net.parameters(), lr=lr)

    def forward(self, x):
        return self.net(x)

    def train(self, x, y):
        for idx in torch.randperm(len(x)).split(50):
            self.opt.zero_grad()
            loss = nn.functional.cross_entropy(self(x[idx]), y[idx])
            loss.backward()
            self.opt.step()
        return loss.item()

    def score(self, x, y):
        with torch.no_grad():
            return (self(x).argmax(1) == y).float().mean().item()


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
model = Classifier()
for epoch in range(5):
    loss = model.train(x[:1400], y[:1400])
    for m in model.modules():
        m.training = False
    print(epoch, round(loss, 4), round(model.score(x[1400:], y[1400:]), 3))
