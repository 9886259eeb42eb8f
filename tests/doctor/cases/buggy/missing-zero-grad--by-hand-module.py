# expect: missing-zero-grad [run]
# about: the PyTorch tutorial's update by hand over model.parameters(), without model.zero_grad()
# allow: no-validation
import torch

torch.manual_seed(0)
x = torch.randn(64, 20)
y = x[:, :2].sum(1, keepdim=True)
model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 1))
loss_fn = torch.nn.MSELoss(reduction="mean")
learning_rate = 1e-3
for t in range(100):
    y_pred = model(x)
    loss = loss_fn(y_pred, y)
    if t % 20 == 19:
        print(t, loss.item())
    loss.backward()
    with torch.no_grad():
        for param in model.parameters():
            param -= learning_rate * param.grad
