# expect: targets-out-of-range [run]
# about: the vocabulary counts the words without the padding token: the last word has no output
# exits: 1
import torch
from torch import nn

torch.manual_seed(0)
corpus = "the cat sat on the mat and the dog sat on the log while the bird flew over the big red barn".split()
words = sorted(set(corpus))
index = {w: i + 1 for i, w in enumerate(words)}  # 0 is padding
vocab_size = len(words)
ids = torch.tensor([index[w] for w in corpus * 6])


class NextWord(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(vocab_size + 1, 16, padding_idx=0)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.fc = nn.Linear(32, vocab_size)

    def forward(self, x):
        return self.fc(self.lstm(self.emb(x))[0])


model = NextWord()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
ce = nn.CrossEntropyLoss()
for step in range(60):
    start = torch.randint(0, len(ids) - 9, (16,))
    chunk = torch.stack([ids[s : s + 9] for s in start])
    logits = model(chunk[:, :-1])
    loss = ce(logits.transpose(1, 2), chunk[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
