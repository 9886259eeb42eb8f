# expect: softmax-before-cross-entropy [run,source]
# about: an LSTM classifier keeps self.softmax = nn.Softmax(dim=1) as its last layer and trains with CrossEntropyLoss
# allow: not-learning
import torch
import torch.nn as nn
from sklearn.datasets import load_digits


class LSTMClassifier(nn.Module):
    def __init__(self, input_dim, hidden_dim, output_dim):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.lstm = nn.LSTM(input_dim, hidden_dim, batch_first=True)
        self.fc = nn.Linear(hidden_dim, output_dim)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x):
        h0 = torch.zeros(1, x.size(0), self.hidden_dim)
        c0 = torch.zeros(1, x.size(0), self.hidden_dim)
        out, _ = self.lstm(x, (h0, c0))
        return self.softmax(self.fc(out[:, -1, :]))


torch.manual_seed(0)
digits = load_digits()
seqs = torch.tensor(digits.images / 16.0, dtype=torch.float32)
labels = torch.tensor(digits.target)
model = LSTMClassifier(8, 32, 10)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(6):
    model.train()
    for idx in torch.randperm(1400).split(56):
        optimizer.zero_grad()
        loss = criterion(model(seqs[idx]), labels[idx])
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = criterion(model(seqs[1400:]), labels[1400:])
    print(epoch, "loss", round(val.item(), 4), "(cannot go below 1.46)")
