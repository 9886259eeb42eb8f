# expect: argmax-over-wrong-dimension [run]
# accept: batch-samples-mix
# about: attention pooling over a sequence-first LSTM is batch-first here: softmax(dim=0) runs over the batch
import torch
import torch.nn as nn
import torch.nn.functional as F


class AttentionPool(nn.Module):
    def __init__(self, vocab=25, dim=24, n_classes=2):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.score = nn.Linear(dim, 1)
        self.out = nn.Linear(dim, n_classes)

    def forward(self, tokens):
        states, _ = self.lstm(self.embed(tokens))  # (N, T, D)
        weights = F.softmax(self.score(states), dim=0)
        context = (weights * states).sum(dim=1)
        return self.out(context)


torch.manual_seed(0)
tokens = torch.randint(0, 25, (600, 10))
labels = (tokens == 7).any(1).long()
model = AttentionPool()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(8):
    model.train()
    for idx in torch.randperm(500).split(50):
        opt.zero_grad()
        loss = F.cross_entropy(model(tokens[idx]), labels[idx])
        loss.backward()
        opt.step()
    model.eval()
    with torch.no_grad():
        acc = (model(tokens[500:]).argmax(-1) == labels[500:]).float().mean().item()
    print(f"epoch {epoch} loss {loss.item():.4f} acc {acc:.3f}")
