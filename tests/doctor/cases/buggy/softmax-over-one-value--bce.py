# expect: softmax-over-one-value [run,source]
# about: one output unit with Softmax(dim=1) and BCELoss: the output is 1 for every sample
# allow: logits-in-probability-loss
# allow: input-ignored
# allow: weights-do-not-move
# allow: not-learning
# allow: loss-is-constant
# allow: initial-loss-off
# allow: parameters-without-gradient
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn


class BinaryNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(30, 20)
        self.fc2 = nn.Linear(20, 1)
        self.out = nn.Softmax(dim=1)

    def forward(self, x):
        return self.out(self.fc2(torch.relu(self.fc1(x))))


torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
Xt, Xv, yt, yv = train_test_split(X, y, stratify=y, random_state=0)
sc = StandardScaler().fit(Xt)
Xt, Xv = torch.tensor(sc.transform(Xt)).float(), torch.tensor(sc.transform(Xv)).float()
yt, yv = torch.tensor(yt).float()[:, None], torch.tensor(yv).float()[:, None]
net = BinaryNet()
loss_fn = nn.BCELoss()
opt = torch.optim.SGD(net.parameters(), lr=0.05)
for epoch in range(8):
    for idx in torch.randperm(len(Xt)).split(32):
        loss = loss_fn(net(Xt[idx]), yt[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        out = net(Xv)
    print(epoch, loss.item(), "outputs", out.unique().tolist(), "acc", ((out > 0.5).float() == yv).float().mean().item())
