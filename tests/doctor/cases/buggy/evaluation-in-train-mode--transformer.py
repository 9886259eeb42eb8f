# expect: evaluation-in-train-mode [run,source]
# about: a transformer encoder with dropout is validated right after its training epoch, in train mode
import torch
import torch.nn as nn

torch.manual_seed(0)
V, T = 20, 10


def more_small_ones(n, g):
    x = torch.randint(0, V, (n, T), generator=g)
    return x, ((x < 8).sum(1) > (x > 11).sum(1)).long()


class SeqClassifier(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.emb, self.pos = nn.Embedding(V, d), nn.Parameter(0.1 * torch.randn(T, d))
        layer = nn.TransformerEncoderLayer(d, 4, 64, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out = nn.Linear(d, 2)

    def forward(self, ids):
        h = self.encoder(self.emb(ids) + self.pos)
        return self.out(h.mean(1))


g = torch.Generator().manual_seed(0)
(x, y), (x_val, y_val) = more_small_ones(2000, g), more_small_ones(400, g)
model = SeqClassifier()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
loss_fn = nn.CrossEntropyLoss()
for epoch in range(5):
    model.train()
    for idx in torch.randperm(2000).split(50):
        optimizer.zero_grad()
        loss_fn(model(x[idx]), y[idx]).backward()
        optimizer.step()
    with torch.no_grad():
        val = [loss_fn(model(xb), yb).item() for xb, yb in zip(x_val.split(100), y_val.split(100))]
    print(f"epoch {epoch} validation loss {sum(val) / len(val):.4f}")
