# expect: softmax-over-one-value [run,source]
# about: squeezed wrongly: log_softmax runs over a last dimension of size one, so every log-probability is 0
# allow: not-learning
# allow: weights-do-not-move
# allow: loss-is-constant
# allow: input-ignored
# allow: logits-in-probability-loss
# allow: initial-loss-off
# allow: parameters-without-gradient
# allow: argmax-over-wrong-dimension
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class RowLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 24, batch_first=True)
        self.fc = nn.Linear(24, 10)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        scores = self.fc(h[-1]).unsqueeze(-1)  # (N, 10, 1)
        return F.log_softmax(scores, dim=-1).squeeze(-1)


torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32), torch.tensor(d.target)
model = RowLSTM()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(4):
    for i in torch.randperm(1400).split(50):
        opt.zero_grad()
        loss = F.nll_loss(model(x[i]), y[i])
        loss.backward()
        opt.step()
    with torch.no_grad():
        out = model(x[1400:])
    print(epoch, "loss", loss.item(), "acc", (out.argmax(1) == y[1400:]).float().mean().item())
