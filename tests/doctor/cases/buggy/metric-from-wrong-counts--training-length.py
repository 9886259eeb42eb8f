# expect: metric-from-wrong-counts [run,source]
# about: validation accuracy is divided by the length of the training set: it can never pass 0.28
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.data / 16.0, dtype=torch.float32), torch.tensor(d.target)
train_loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
val_loader = DataLoader(TensorDataset(x[1400:], y[1400:]), batch_size=100)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)


def loop(loader, training):
    model.train(training)
    running_corrects = 0
    with torch.set_grad_enabled(training):
        for inputs, labels in loader:
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs, labels)
            if training:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            running_corrects += torch.sum(outputs.argmax(1) == labels).item()
    return running_corrects / len(train_loader.dataset)


for epoch in range(5):
    print(f"epoch {epoch} train acc {loop(train_loader, True):.3f} val acc {loop(val_loader, False):.3f}")
