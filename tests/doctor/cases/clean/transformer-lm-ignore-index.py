# expect: nothing
# about: a small causal transformer copies padded words; targets hold -100 where nothing is to be learnt, logits are transposed to (N,C,T)
import torch
import torch.nn as nn

torch.manual_seed(0)
VOCAB = "abcdefghijklmnopqrst=. "  # '=' asks for the copy, '.' ends, ' ' pads
code = {c: i for i, c in enumerate(VOCAB)}
L = 16


def words(n, g):
    """Strings such as 'hcadst=hcadst.': the copy and the end are to be predicted, the word itself and the padding are not."""
    xs, ys = [], []
    for _ in range(n):
        size = int(torch.randint(6, 8, (1,), generator=g))
        word = torch.randint(0, 20, (size,), generator=g).tolist()
        ids = [*word, code["="], *word, code["."]]
        labels = [-100] * (size + 1) + ids[size + 1 :]
        xs.append((ids + [code[" "]] * L)[:L])
        ys.append((labels + [-100] * L)[1 : L + 1])
    return torch.tensor(xs), torch.tensor(ys)


class GPT(nn.Module):
    def __init__(self, d=48, heads=4, layers=2):
        super().__init__()
        self.tok, self.pos = nn.Embedding(len(VOCAB), d), nn.Embedding(L, d)
        layer = nn.TransformerEncoderLayer(d, heads, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.enc = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, len(VOCAB))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(L))

    def forward(self, x):
        h = self.tok(x) + self.pos.weight[: x.size(1)]
        return self.head(self.norm(self.enc(h, mask=self.mask)))


g = torch.Generator().manual_seed(1)
vx, vy = words(150, torch.Generator().manual_seed(99))
model = GPT()
opt = torch.optim.AdamW(model.parameters(), lr=4e-3)
loss_fn = nn.CrossEntropyLoss(ignore_index=-100)
step = 0
while step < 120:
    x, y = words(48, g)
    logits = model(x)
    loss = loss_fn(logits.transpose(1, 2), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    step += 1
    if step % 40 == 0:
        model.eval()
        with torch.no_grad():
            out, known = model(vx), vy != -100
            acc = (out.argmax(-1)[known] == vy[known]).float().mean().item()
            val = loss_fn(out.transpose(1, 2), vy).item()
        model.train()
        print(step, "train", round(loss.item(), 3), "val", round(val, 3), "characters right", round(acc, 3))
