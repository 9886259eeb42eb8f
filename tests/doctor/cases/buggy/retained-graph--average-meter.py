# expect: retained-graph [run,source]
# about: a meter is fed loss tensors with their graphs, and sums them over the whole training
# allow: memory-grows
# allow: no-validation
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class AverageMeter:
    def __init__(self):
        self.sum, self.count, self.avg = 0, 0, 0

    def update(self, val, n=1):
        self.sum = self.sum + val * n
        self.count += n
        self.avg = self.sum / self.count


torch.manual_seed(0)
d = load_digits()
loader = DataLoader(TensorDataset(torch.tensor(d.data / 16.0).float(), torch.tensor(d.target)), batch_size=60, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
losses = AverageMeter()
for epoch in range(4):
    for i, (input, target) in enumerate(loader):
        output = model(input)
        loss = criterion(output, target)
        losses.update(loss, input.size(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("Epoch {0} Loss {1:.4f}".format(epoch, float(losses.avg)))
