# expect: nothing
# about: focal loss on a rare class: bias starts at -log((1-p)/p), first loss far below ln 2, sigmoid applied inside the loss only
import torch
import torch.nn as nn
from sklearn.datasets import make_classification
from sklearn.metrics import average_precision_score
from sklearn.model_selection import train_test_split


class FocalLoss(nn.Module):
    def __init__(self, alpha=0.75, gamma=2.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits, targets):
        ce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        p = torch.sigmoid(logits)
        p_t = p * targets + (1 - p) * (1 - targets)
        alpha_t = self.alpha * targets + (1 - self.alpha) * (1 - targets)
        return (alpha_t * (1 - p_t) ** self.gamma * ce).mean()


torch.manual_seed(0)
X, y = make_classification(3000, 12, n_informative=6, weights=[0.93], class_sep=1.3, random_state=0)
X_tr, X_te, y_tr, y_te = train_test_split(X, y, stratify=y, random_state=0)
mean, std = X_tr.mean(0), X_tr.std(0)
X_tr, X_te = (torch.tensor((a - mean) / std, dtype=torch.float32) for a in (X_tr, X_te))
t = torch.tensor(y_tr, dtype=torch.float32)
model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 1))
prior = t.mean()
nn.init.constant_(model[-1].bias, float(torch.log(prior / (1 - prior))))
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
focal = FocalLoss()
for epoch in range(8):
    for idx in torch.randperm(len(t)).split(128):
        opt.zero_grad()
        loss = focal(model(X_tr[idx]).view(-1), t[idx])
        loss.backward()
        opt.step()
    with torch.no_grad():
        score = torch.sigmoid(model(X_te).view(-1)).numpy()
    print(epoch, "average precision", round(average_precision_score(y_te, score), 3), "prevalence", round(y_te.mean(), 3))
