# expect: nothing
# about: a linear SVM with a hinge loss on separable data reaches a loss of exactly 0: no gradient, no movement, all learnt
import torch
from sklearn.datasets import make_blobs
from torch import nn

torch.manual_seed(0)
X, y = make_blobs(300, centers=[[-3, -3], [3, 3]], cluster_std=0.7, random_state=1)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(2.0 * y - 1, dtype=torch.float32)
train_x, test_x, train_y, test_y = X[:240], X[240:], y[:240], y[240:]
svm = nn.Linear(2, 1)
opt = torch.optim.SGD(svm.parameters(), lr=0.1)
for epoch in range(20):
    for i in torch.randperm(240).split(40):
        score = svm(train_x[i]).squeeze(1)
        loss = torch.clamp(1 - train_y[i] * score, min=0).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        acc = (svm(test_x).squeeze(1).sign() == test_y).float().mean()
    print(epoch, loss.item(), acc.item())
