# expect: softmax-before-cross-entropy [run]
# about: a sequence tagger: softmax over the tags, permuted to (N, C, T) for cross-entropy with ignore_index
# allow: not-learning
import torch
import torch.nn as nn

PAD = -100


class Tagger(nn.Module):
    def __init__(self, n_words=30, n_tags=4):
        super().__init__()
        self.embedding = nn.Embedding(n_words, 24)
        layer = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.hidden2tag = nn.Linear(24, n_tags)
        self.softmax = nn.Softmax(dim=2)

    def forward(self, sentence):
        out = self.encoder(self.embedding(sentence))
        return self.softmax(self.hidden2tag(out))


torch.manual_seed(5)
words = torch.randint(0, 30, (480, 9))
tags = words % 4
lengths = torch.randint(5, 10, (480,))
tags = tags.masked_fill(torch.arange(9)[None] >= lengths[:, None], PAD)

model = Tagger()
criterion = nn.CrossEntropyLoss(ignore_index=PAD)
opt = torch.optim.AdamW(model.parameters(), lr=3e-3)

step = 0
while step < 90:
    pick = torch.randint(0, len(words), (40,))
    scores = model(words[pick])  # (N, T, C)
    loss = criterion(scores.permute(0, 2, 1), tags[pick])
    opt.zero_grad()
    loss.backward()
    opt.step()
    step += 1
    if step % 30 == 0:
        print(step, float(loss))
