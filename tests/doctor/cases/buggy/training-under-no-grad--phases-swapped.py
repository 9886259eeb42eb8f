# expect: training-under-no-grad [run,source]
# about: set_grad_enabled(phase == "val") is the wrong way round: the training forward records nothing and backward fails
# allow: evaluation-builds-graph
# exits: 1
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
d = load_digits()
x, y = torch.tensor(d.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(d.target)
dataloaders = {
    "train": DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=64, shuffle=True),
    "val": DataLoader(TensorDataset(x[1400:], y[1400:]), batch_size=64),
}
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(288, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
criterion = nn.CrossEntropyLoss()
for epoch in range(3):
    for phase in ("train", "val"):
        model.train(phase == "train")
        running_loss, running_corrects = 0.0, 0
        for inputs, labels in dataloaders[phase]:
            optimizer.zero_grad()
            with torch.set_grad_enabled(phase == "val"):
                outputs = model(inputs)
                loss = criterion(outputs, labels)
            if phase == "train":
                loss.backward()
                optimizer.step()
            running_loss += loss.item() * inputs.size(0)
            running_corrects += (outputs.argmax(1) == labels).sum().item()
        n = len(dataloaders[phase].dataset)
        print(f"{phase} loss {running_loss / n:.4f} acc {running_corrects / n:.4f}")
