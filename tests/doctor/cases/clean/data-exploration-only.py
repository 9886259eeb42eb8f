# expect: nothing
# about: tensors, loaders and statistics over all data, no model and no training: nothing can leak
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

bunch = load_breast_cancer()
X = StandardScaler().fit_transform(bunch.data)
projected = PCA(3, random_state=0).fit_transform(X)
dataset = TensorDataset(torch.tensor(projected, dtype=torch.float32), torch.tensor(bunch.target))
sums, counts = torch.zeros(2, 3), torch.zeros(2)
for points, labels in DataLoader(dataset, batch_size=64, shuffle=False):
    for c in (0, 1):
        sums[c] += points[labels == c].sum(0)
        counts[c] += (labels == c).sum()
print("class sizes", counts.tolist())
print("class centres", (sums / counts[:, None]).tolist())
corr = torch.corrcoef(torch.tensor(bunch.data.T))
print("pairs of features with correlation above 0.95:", int((corr.triu(1) > 0.95).sum()))
