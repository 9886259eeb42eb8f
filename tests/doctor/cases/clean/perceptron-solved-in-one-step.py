# expect: nothing
# about: a perceptron by a clamp loss on well separated clouds: the first update solves it, all later gradients are zero
import torch

torch.manual_seed(1)
pos = torch.randn(60, 2) * 0.3 + torch.tensor([3.0, 3.0])
neg = torch.randn(60, 2) * 0.3 - torch.tensor([3.0, 3.0])
X = torch.cat([pos, neg])
t = torch.cat([torch.ones(60), -torch.ones(60)])
perceptron = torch.nn.Linear(2, 1)
torch.nn.init.constant_(perceptron.weight, -0.1)
optimizer = torch.optim.SGD(perceptron.parameters(), lr=1.0)
for epoch in range(70):
    margin = t * perceptron(X).squeeze(1)
    loss = torch.relu(-margin).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 10 == 0:
        print(epoch, loss.item(), (margin > 0).float().mean().item())
