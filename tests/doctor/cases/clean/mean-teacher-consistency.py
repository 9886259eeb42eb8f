# expect: nothing
# about: mean teacher: the teacher has no optimizer, its forward runs without grad in train mode, a squared error of two softmax outputs
import torch
from sklearn.datasets import make_moons
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 48), nn.ReLU())
        self.head = nn.Linear(48, 2)

    def forward(self, x):
        return self.head(self.body(x))


def update_ema_variables(model, ema_model, alpha, global_step):
    alpha = min(1 - 1 / (global_step + 1), alpha)
    for ema_param, param in zip(ema_model.parameters(), model.parameters()):
        ema_param.data.mul_(alpha).add_(param.data, alpha=1 - alpha)


torch.manual_seed(2)
pts, lab = make_moons(1200, noise=0.15, random_state=2)
pts, lab = torch.tensor(pts, dtype=torch.float32), torch.tensor(lab)
pool, val_x, val_y = pts[:900], pts[900:], lab[900:]
known = torch.cat([torch.where(lab[:900] == c)[0][:12] for c in (0, 1)])

model, ema_model = Net(), Net()
for p in ema_model.parameters():
    p.detach_()
ema_model.load_state_dict(model.state_dict())
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
class_criterion = nn.CrossEntropyLoss()
consistency = nn.MSELoss()
for step in range(200):
    model.train()
    ema_model.train()
    u = pool[torch.randint(0, 900, (76,))]
    batch = torch.cat([pool[known], u])
    student_logits = model(batch + 0.05 * torch.randn_like(batch))
    with torch.no_grad():
        teacher_logits = ema_model(batch + 0.05 * torch.randn_like(batch))
    class_loss = class_criterion(student_logits[: len(known)], lab[known])
    cons_loss = consistency(student_logits.softmax(1), teacher_logits.softmax(1))
    loss = class_loss + 3.0 * min(1.0, step / 100) * cons_loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    update_ema_variables(model, ema_model, 0.98, step)
    if step % 50 == 49:
        ema_model.eval()
        with torch.no_grad():
            acc = (ema_model(val_x).argmax(1) == val_y).float().mean()
        print("step", step + 1, "teacher accuracy", round(acc.item(), 3))
