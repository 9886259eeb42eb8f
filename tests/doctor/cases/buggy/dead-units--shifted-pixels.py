# expect: dead-units [run]
# about: inputs shifted the wrong way (x - 255 instead of x / 255 - 0.5 …): all of them hugely negative; a conv with positive kernels goes silent
# accept: inputs-not-scaled
# allow: not-learning
# allow: input-ignored
import torch
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 3, bias=False)
        nn.init.uniform_(self.conv.weight, 0.0, 0.2)
        self.fc = nn.Linear(12 * 36, 10)

    def forward(self, x):
        return self.fc(nn.functional.relu(self.conv(x)).flatten(1))


torch.manual_seed(0)
d = load_digits()
images = torch.tensor(d.images, dtype=torch.float32)[:, None] / 16 - 1.0
labels = torch.tensor(d.target)
net = Net()
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for step in range(100):
    i = torch.randint(0, 1500, (64,))
    loss = nn.functional.cross_entropy(net(images[i]), labels[i])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 25 == 0:
        print(step, loss.item())
