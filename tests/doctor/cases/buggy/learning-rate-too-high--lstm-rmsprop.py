# expect: learning-rate-too-high [run]
# about: RMSprop(lr=1) on an LSTM classifier
# allow: not-learning
# allow: input-ignored
# allow: exploding-gradients
# allow: saturated-activations
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(800, 10, 3)
y = (x[:, :, 0].sum(1) > 0).long()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(3, 24, batch_first=True), nn.Linear(24, 2)

    def forward(self, x):
        return self.fc(self.lstm(x)[1][0][-1])


net = Net()
opt = torch.optim.RMSprop(net.parameters(), lr=1.0)
step = 0
while step < 110:
    i = torch.randint(0, 640, (40,))
    loss = nn.functional.cross_entropy(net(x[i]), y[i])
    opt.zero_grad()
    loss.backward()
    opt.step()
    step += 1
    if step % 20 == 0:
        with torch.no_grad():
            print(step, loss.item(), (net(x[640:]).argmax(1) == y[640:]).float().mean().item())
