# expect: nothing
# about: VAT: a backward to the input inside each step leaves gradients in the weights, which are zeroed before the real backward
import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn


def l2_unit(d):
    return d / (d.norm(dim=1, keepdim=True) + 1e-8)


def vat_loss(model, x, xi=0.1, eps=0.5):
    with torch.no_grad():
        pred = F.softmax(model(x), dim=1)
    d = l2_unit(torch.randn_like(x)).requires_grad_()
    adv = F.kl_div(F.log_softmax(model(x + xi * d), dim=1), pred, reduction="batchmean")
    adv.backward()
    d = l2_unit(d.grad.detach())
    model.zero_grad()
    return F.kl_div(F.log_softmax(model(x + eps * d), dim=1), pred, reduction="batchmean")


torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=1)
scaler = StandardScaler().fit(X_train)
X_train = torch.tensor(scaler.transform(X_train), dtype=torch.float32)
X_test = torch.tensor(scaler.transform(X_test), dtype=torch.float32)
y_train, y_test = torch.tensor(y_train), torch.tensor(y_test)
model = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(12):
    for idx in torch.randperm(len(X_train)).split(31):
        xb, yb = X_train[idx], y_train[idx]
        lds = vat_loss(model, xb)
        loss = F.cross_entropy(model(xb), yb) + lds
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 3 == 2:
        with torch.no_grad():
            acc = (model(X_test).argmax(1) == y_test).float().mean().item()
        print(f"epoch {epoch} loss {loss.item():.3f} lds {lds.item():.4f} test acc {acc:.3f}")
