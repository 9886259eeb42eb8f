# expect: argmax-over-wrong-dimension [run]
# about: predictions by argmax(axis=0) over the whole test matrix, compared by a loop that zips (no shape error)
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(0)
X, y = load_iris(return_X_y=True)
X_tr, X_te, y_tr, y_te = (torch.as_tensor(a) for a in train_test_split(X, y, test_size=0.2, random_state=0))
X_tr, X_te = X_tr.float(), X_te.float()
model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
opt = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(100):
    opt.zero_grad()
    loss = nn.CrossEntropyLoss()(model(X_tr), y_tr)
    loss.backward()
    opt.step()
model.eval()
with torch.no_grad():
    scores = model(X_te)
    preds = scores.argmax(axis=0)
    correct = sum(int(p == t) for p, t in zip(preds, y_te))
print("accuracy", correct / len(y_te))
