# expect: nothing
# about: a tiny line fit that has converged to machine precision long before its last epoch: tiny gradients, a constant loss
import torch

X = torch.arange(0, 1, 0.02).unsqueeze(1)
y = 0.7 * X + 0.3
X_train, y_train, X_test, y_test = X[:40], y[:40], X[40:], y[40:]


class LinearRegressionModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.randn(1))
        self.bias = torch.nn.Parameter(torch.randn(1))

    def forward(self, x):
        return self.weights * x + self.bias


torch.manual_seed(42)
model = LinearRegressionModel()
loss_fn = torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.7)
for epoch in range(150):
    model.train()
    y_pred = model(X_train)
    loss = loss_fn(y_pred, y_train)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.eval()
    with torch.inference_mode():
        test_loss = loss_fn(model(X_test), y_test)
    if epoch % 25 == 0:
        print(f"Epoch: {epoch} | loss {loss} | test {test_loss}")
