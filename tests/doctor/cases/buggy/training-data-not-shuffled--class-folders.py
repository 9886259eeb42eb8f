# expect: training-data-not-shuffled [run,source]
# about: samples are listed class after class, as folders are, and the training loader does not shuffle
# allow: learning-rate-too-high
# allow: same-order-every-epoch
# allow: degenerate-targets
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class ImageFolderLike(Dataset):
    def __init__(self, split):
        d = load_digits()
        self.samples = []
        for c in range(10):
            images = d.images[d.target == c]
            cut = int(0.8 * len(images))
            self.samples += [(im, c) for im in (images[:cut] if split == "train" else images[cut:])]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        image, label = self.samples[i]
        return torch.tensor(image / 16.0, dtype=torch.float32).flatten(), label


torch.manual_seed(0)
trainset, testset = ImageFolderLike("train"), ImageFolderLike("test")
trainloader = DataLoader(trainset, batch_size=32)
testloader = DataLoader(testset, batch_size=100)
net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
for epoch in range(4):
    net.train()
    for inputs, labels in trainloader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        correct = sum((net(x).argmax(1) == y).sum().item() for x, y in testloader)
    print(epoch, correct / len(testset))
