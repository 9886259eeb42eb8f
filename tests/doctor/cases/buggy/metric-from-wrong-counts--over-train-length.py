# expect: metric-from-wrong-counts [run]
# about: the validation's hits are divided by the training set's length
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
perm = torch.randperm(178)
Xt, yt = torch.tensor(X, dtype=torch.float32)[perm], torch.tensor(y)[perm]
sc = StandardScaler().fit(Xt[:130].numpy())
Xt = torch.tensor(sc.transform(Xt.numpy()), dtype=torch.float32)
datasets = {"train": TensorDataset(Xt[:130], yt[:130]), "val": TensorDataset(Xt[130:], yt[130:])}
loaders = {k: DataLoader(v, batch_size=16, shuffle=k == "train") for k, v in datasets.items()}
model = nn.Sequential(nn.Linear(13, 24), nn.ReLU(), nn.Linear(24, 3))
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
crit = nn.CrossEntropyLoss()
for epoch in range(10):
    for phase in ["train", "val"]:
        model.train(phase == "train")
        running_loss, running_corrects = 0.0, 0
        for inputs, labels in loaders[phase]:
            opt.zero_grad()
            with torch.set_grad_enabled(phase == "train"):
                outputs = model(inputs)
                _, preds = torch.max(outputs, 1)
                loss = crit(outputs, labels)
                if phase == "train":
                    loss.backward()
                    opt.step()
            running_loss += loss.item() * inputs.size(0)
            running_corrects += torch.sum(preds == labels.data)
        epoch_acc = running_corrects.double() / len(datasets["train"])
        print(f"{phase} Loss: {running_loss / len(datasets[phase]):.4f} Acc: {epoch_acc:.4f}")
