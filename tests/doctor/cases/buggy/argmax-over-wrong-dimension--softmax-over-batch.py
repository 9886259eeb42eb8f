# expect: argmax-over-wrong-dimension [run,source]
# about: the output layer is nn.Softmax(dim=0): probabilities sum to one over the batch, not over the classes
# allow: batch-samples-mix
# allow: logits-in-probability-loss
# allow: not-learning
# allow: softmax-before-cross-entropy
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
a, b, ya, yb = train_test_split(X, y, stratify=y, random_state=0)
m, s = a.mean(0), a.std(0)
a, b = torch.tensor((a - m) / s).float(), torch.tensor((b - m) / s).float()
ya, yb = torch.tensor(ya), torch.tensor(yb)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(dim=0))

    def forward(self, x):
        return torch.log(self.net(x) + 1e-9)


model = Classifier()
loss_fn = nn.NLLLoss()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(15):
    for rows in torch.randperm(len(a)).split(19):
        opt.zero_grad()
        loss = loss_fn(model(a[rows]), ya[rows])
        loss.backward()
        opt.step()
    if epoch % 3 == 2:
        with torch.no_grad():
            p = model(b)
            print(epoch, "val", round(loss_fn(p, yb).item(), 3), "sum of the first row", round(p[0].exp().sum().item(), 3), "alone", model(b[:1]).exp().tolist())
