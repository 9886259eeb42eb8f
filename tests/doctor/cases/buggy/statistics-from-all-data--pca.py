# expect: statistics-from-all-data [run,source]
# about: StandardScaler and PCA are fitted on all rows, then the rows are split
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def load():
    X, y = load_breast_cancer(return_X_y=True)
    X = make_pipeline(StandardScaler(), PCA(10, whiten=True, random_state=0)).fit_transform(X)
    a, b, ya, yb = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
    t = lambda v: torch.tensor(v, dtype=torch.float32)
    return TensorDataset(t(a), t(ya)), TensorDataset(t(b), t(yb))


torch.manual_seed(0)
train, val = load()
train_dl, val_dl = DataLoader(train, 32, shuffle=True), DataLoader(val, 143)
net = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 1), nn.Flatten(0))
bce = nn.BCEWithLogitsLoss()
opt = torch.optim.Adam(net.parameters(), lr=4e-3)
for epoch in range(6):
    for x, y in train_dl:
        opt.zero_grad()
        bce(net(x), y).backward()
        opt.step()
    with torch.no_grad():
        print(epoch, [round(((net(x) > 0).float() == y).float().mean().item(), 3) for x, y in val_dl])
