# expect: nothing
# about: k folds, each with its own model, optimizer and statistics; a sample is training in one fold and validation in another
import numpy as np
import torch
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset


def reset_weights(m):
    if hasattr(m, "reset_parameters"):
        m.reset_parameters()


def run_fold(fold, train_ids, test_ids, X, y):
    prep = make_pipeline(StandardScaler(), PCA(8)).fit(X[train_ids])
    dataset = TensorDataset(torch.tensor(prep.transform(X), dtype=torch.float32), torch.tensor(y))
    trainloader = DataLoader(dataset, batch_size=20, sampler=SubsetRandomSampler(train_ids))
    testloader = DataLoader(Subset(dataset, test_ids), batch_size=len(test_ids))
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    network.apply(reset_weights)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    loss_function = nn.CrossEntropyLoss()
    for epoch in range(8):
        network.train()
        for inputs, targets in trainloader:
            optimizer.zero_grad()
            loss_function(network(inputs), targets).backward()
            optimizer.step()
    network.eval()
    correct = 0
    with torch.no_grad():
        for inputs, targets in testloader:
            correct += (network(inputs).argmax(1) == targets).sum().item()
    print(f"fold {fold}: {correct / len(test_ids):.3f}")
    return correct / len(test_ids)


if __name__ == "__main__":
    torch.manual_seed(42)
    X, y = load_wine(return_X_y=True)
    results = [run_fold(k, tr, te, X, y) for k, (tr, te) in enumerate(KFold(5, shuffle=True, random_state=42).split(X))]
    print("average", np.mean(results))
