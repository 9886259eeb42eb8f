# expect: iterable-not-sharded [run,source]
# about: a stream of token windows with two workers and no get_worker_info: every window comes twice
# allow: no-validation
# allow: loader-bound
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

text = load_breast_cancer().DESCR
vocab = {c: i for i, c in enumerate(sorted(set(text)))}


class Windows(IterableDataset):
    def __init__(self, text, size=20, stride=8):
        super().__init__()
        self.ids = torch.tensor([vocab[c] for c in text])
        self.size, self.stride = size, stride

    def __iter__(self):
        for start in range(0, len(self.ids) - self.size - 1, self.stride):
            yield {"input_ids": self.ids[start : start + self.size], "labels": self.ids[start + 1 : start + self.size + 1]}


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(len(vocab), 24)
        self.gru = nn.GRU(24, 48, batch_first=True)
        self.out = nn.Linear(48, len(vocab))

    def forward(self, input_ids, labels):
        logits = self.out(self.gru(self.emb(input_ids))[0])
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


if __name__ == "__main__":
    torch.manual_seed(0)
    loader = DataLoader(Windows(text), batch_size=32, num_workers=2)
    lm = LM()
    opt = torch.optim.AdamW(lm.parameters(), lr=5e-3)
    for epoch in range(3):
        windows = 0
        for batch in loader:
            loss = lm(**batch)
            opt.zero_grad()
            loss.backward()
            opt.step()
            windows += len(batch["labels"])
        print(epoch, "windows seen", windows, "windows there", (len(text) - 21) // 8 + 1, "loss", round(loss.item(), 3))
