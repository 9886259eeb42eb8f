# expect: statistics-from-all-data [run,source]
# about: missing cells are filled with medians and scaled to 0..1 over all rows before train_test_split
import numpy as np
import torch
from sklearn.datasets import load_wine
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler
from torch import nn

rng = np.random.default_rng(0)
torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
X[rng.random(X.shape) < 0.05] = np.nan
X = SimpleImputer(strategy="median").fit_transform(X)
X = MinMaxScaler().fit_transform(X)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
X_train, X_test = torch.FloatTensor(X_train), torch.FloatTensor(X_test)
y_train, y_test = torch.LongTensor(y_train), torch.LongTensor(y_test)
model = nn.Sequential(nn.Linear(13, 20), nn.ReLU(), nn.Linear(20, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(80):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(X_train), y_train)
    loss.backward()
    optimizer.step()
    if epoch % 20 == 19:
        with torch.no_grad():
            print(epoch, loss.item(), (model(X_test).argmax(1) == y_test).float().mean().item())
