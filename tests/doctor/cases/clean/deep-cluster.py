# expect: nothing
# about: DeepCluster: features of the whole training set in eval mode, k-means labels, a new head with a new optimizer for it each epoch
import torch
from torch import nn
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X = torch.tensor(X / 16).float()
body = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 16))
opt = torch.optim.SGD(body.parameters(), 0.05, momentum=0.9)
for ep in range(4):
    body.eval()
    with torch.no_grad():
        feats = body(X)
    labels = torch.tensor(KMeans(10, n_init=2, random_state=0).fit_predict(feats.numpy())).long()
    print(ep, normalized_mutual_info_score(y, labels.numpy()))
    head = nn.Linear(16, 10)
    hopt = torch.optim.SGD(head.parameters(), 0.1)
    body.train()
    for i in torch.randperm(len(X)).split(60):
        if len(i) < 2:
            continue
        loss = nn.functional.cross_entropy(head(body(X[i])), labels[i])
        opt.zero_grad()
        hopt.zero_grad()
        loss.backward()
        opt.step()
        hopt.step()
