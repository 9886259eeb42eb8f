# expect: nothing
# about: validation after every single optimizer step, with the mode switched there and back each time
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn


class Evaluator:
    def __init__(self, model, x, y):
        self.model, self.x, self.y, self.curve = model, x, y, []

    def __call__(self):
        was_training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            self.curve.append(nn.functional.cross_entropy(self.model(self.x), self.y).item())
        self.model.train(was_training)
        return self.curve[-1]


torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
Xtr, Xva, ytr, yva = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)
mu, sd = Xtr.mean(0), Xtr.std(0)
Xtr, Xva = torch.tensor((Xtr - mu) / sd).float(), torch.tensor((Xva - mu) / sd).float()
ytr, yva = torch.tensor(ytr), torch.tensor(yva)
model = nn.Sequential(nn.Linear(13, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, 3))
opt = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
evaluate = Evaluator(model, Xva, yva)
model.train()
for step in range(100):
    pick = torch.randint(0, len(Xtr), (32,))
    loss = nn.functional.cross_entropy(model(Xtr[pick]), ytr[pick])
    opt.zero_grad()
    loss.backward()
    opt.step()
    v = evaluate()
    if step % 20 == 19:
        print(f"step {step + 1} train {loss.item():.4f} val {v:.4f}")
