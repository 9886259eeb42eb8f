"""What fixes write into scripts as people write them: trainers of a class, functions that others call, other names."""

from __future__ import annotations

import textwrap
from importlib import import_module
from pathlib import Path

import libcst as cst
import pytest

from trueloop.doctor.source.checks import found_in
from trueloop.doctor.source.fixes import Checked, diff, fixed
from trueloop.doctor.source.parse import trouble
from trueloop.doctor.source.program import folders_of
from trueloop.doctor.source.read import Source
from trueloop.doctor.source.units import Unit

HEAD = """
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler, StandardScaler
"""
LOOP = """
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in loader:
    opt.zero_grad()
    criterion(net(x), y).backward()
    opt.step()
"""

MENDED = {
    "a softmax at a Sequential's end, in a class, trained by another": (
        """
        class Net(nn.Module):
            def __init__(self, n):
                super().__init__()
                self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
                self.head = nn.Sequential(
                    nn.Dropout(0.1),  # regularise
                    nn.Linear(8, n),  # logits
                    nn.Softmax(dim=1))
            def forward(self, x):
                return self.head(self.body(x))
        class Trainer:
            def __init__(self, model, loader):
                self.model, self.loader = model, loader
                self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
                self.optimizer = torch.optim.Adam(self.model.parameters())
            def train_epoch(self):
                self.model.train()
                for x, y in self.loader:
                    self.optimizer.zero_grad()
                    loss = self.criterion(self.model(x), y)
                    loss.backward()
                    self.optimizer.step()
        def main():
            t = Trainer(Net(3), loader)
            for epoch in range(3):
                t.train_epoch()
        if __name__ == "__main__":
            main()
        """,
        """
        -            nn.Softmax(dim=1))
        +            )
        """,
    ),
    "a softmax on a line of its own": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = nn.Linear(4, 3)
            def forward(self, x):
                x = self.a(x)
                x = F.softmax(x, dim=1)
                return x
        net, criterion = Net(), nn.CrossEntropyLoss()
        """,
        """
        -        x = F.softmax(x, dim=1)
        """,
    ),
    "a softmax by a method": (
        """
        net = nn.Linear(4, 3)
        def criterion(out, y):
            return F.cross_entropy((out + 1).softmax(-1), y)
        """,
        """
        -    return F.cross_entropy((out + 1).softmax(-1), y)
        +    return F.cross_entropy((out + 1), y)
        """,
    ),
    "a softmax that has a name": (
        """
        from collections import OrderedDict
        net = nn.Sequential(OrderedDict([("fc", nn.Linear(4, 3)), ("soft", nn.Softmax(dim=1))]))
        criterion = nn.CrossEntropyLoss()
        """,
        """
        -net = nn.Sequential(OrderedDict([("fc", nn.Linear(4, 3)), ("soft", nn.Softmax(dim=1))]))
        +net = nn.Sequential(OrderedDict([("fc", nn.Linear(4, 3))]))
        """,
    ),
    "a softmax whose chances go elsewhere too stays": (
        """
        net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
        def criterion(p, y):
            return F.cross_entropy(p, y) - torch.log(p).mean()
        """,
        "",
    ),
    "one layer that stands in every block stays": (
        """
        act = nn.Sigmoid()
        net = nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 1), act)
        criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))
        """,
        "",
    ),
    "a sigmoid that is appended": (
        """
        layers = [nn.Linear(4, 8)]
        layers.append(nn.Linear(8, 1))
        layers.append(nn.Sigmoid())
        net = nn.Sequential(*layers)
        criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))
        """,
        """
        -layers.append(nn.Sigmoid())
        +layers.append(nn.Identity())
        """,
    ),
    "a sigmoid whose chances are cut at a half": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.out = nn.Linear(4, 1)
            def forward(self, x):
                return torch.sigmoid(self.out(x))
            def predict(self, x):
                return self(x) > 0.5
        net, criterion = Net(), nn.BCEWithLogitsLoss(reduction="sum")
        """,
        """
        -net, criterion = Net(), nn.BCEWithLogitsLoss(reduction="sum")
        +net, criterion = Net(), nn.BCELoss(reduction="sum")
        """,
    ),
    "nll of a softmax that the module keeps": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 3)
                self.softmax = nn.Softmax(dim=-1)
            def forward(self, x):
                return self.softmax(self.fc(x))
        net, criterion = Net(), nn.NLLLoss(weight=torch.ones(3))
        """,
        """
        -        self.softmax = nn.Softmax(dim=-1)
        +        self.softmax = nn.LogSoftmax(dim=-1)
        """,
    ),
    "columns in a class, by keyword": (
        """
        class Trainer:
            def __init__(self):
                self.net = nn.Linear(4, 1)
                self.loss_fn = nn.MSELoss()
                self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1)
                self.loader = DataLoader(TensorDataset(torch.randn(64, 4), torch.randn(64)), 8, shuffle=True)
            def fit(self):
                for x, y in self.loader:
                    self.opt.zero_grad()
                    loss = self.loss_fn(input=self.net(x), target=y)
                    loss.backward()
                    self.opt.step()
        Trainer().fit()
        """,
        """
        -            loss = self.loss_fn(input=self.net(x), target=y)
        +            loss = self.loss_fn(input=self.net(x).squeeze(-1), target=y)
        """,
    ),
    "a sampler in the loader, epochs without a name": (
        """
        from tqdm import tqdm
        def train_one(model, loader, opt):
            for i, (a, b) in enumerate(tqdm(loader)):
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
        def main(model, dataset):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            train_loader = DataLoader(dataset, batch_size=32, sampler=DistributedSampler(dataset))
            for _ in range(3):
                train_one(model, train_loader, opt)
        """,
        """
        -    for _ in range(3):
        +    for epoch in range(3):
        +        train_loader.sampler.set_epoch(epoch)
        """,
    ),
    "a sampler of a trainer's": (
        """
        class Trainer:
            def __init__(self, model, data):
                self.model = model
                self.opt = torch.optim.SGD(model.parameters(), lr=0.1)
                self.sampler = DistributedSampler(data)
                self.loader = DataLoader(data, batch_size=32, sampler=self.sampler)
            def epoch(self):
                for a, b in self.loader:
                    self.opt.zero_grad()
                    F.cross_entropy(self.model(a), b).backward()
                    self.opt.step()
            def fit(self, epochs):
                for epoch in range(epochs):
                    self.epoch()
        Trainer(model, data).fit(3)
        """,
        """
        +            self.sampler.set_epoch(epoch)
        """,
    ),
    "a list of means": (
        """
        net = nn.Linear(4, 3)
        def validate(model, loader):
            losses = []
            model.eval()
            with torch.no_grad():
                for batch in loader:
                    x, y = batch
                    losses.append(F.cross_entropy(model(x), y).item())
            return sum(losses) / len(loader)
        print(validate(net, DataLoader(TensorDataset(torch.randn(100, 4), labels), batch_size=32)))
        """,
        """
        -            losses.append(F.cross_entropy(model(x), y).item())
        -    return sum(losses) / len(loader)
        +            losses.append(F.cross_entropy(model(x), y).item() * len(y))
        +    return sum(losses) / len(loader.dataset)
        """,
    ),
    "fitted and applied on two lines, in a function": (
        """
        def load(path):
            X, y = read(path)
            scaler = StandardScaler()
            scaler.fit(X)
            X = scaler.transform(X)
            X_train, X_val, y_train, y_val = train_test_split(
                X, y, test_size=0.2,
                random_state=0)
            net = nn.Linear(X.shape[1], 2)
            return X_train, X_val, y_train, y_val
        load("a.csv")
        """,
        """
        -    scaler.fit(X)
        -    X = scaler.transform(X)
        +    X_train = scaler.fit_transform(X_train)
        +    X_val = scaler.transform(X_val)
        """,
    ),
    "fitted where it is made, under another name": (
        """
        scaler = MinMaxScaler().fit(features)
        scaled = scaler.transform(features)
        train_x, test_x, train_y, test_y = train_test_split(scaled, target)
        """,
        """
        -scaler = MinMaxScaler().fit(features)
        -scaled = scaler.transform(features)
        -train_x, test_x, train_y, test_y = train_test_split(scaled, target)
        +scaler = MinMaxScaler()
        +train_x, test_x, train_y, test_y = train_test_split(features, target)
        +train_x = scaler.fit_transform(train_x)
        +test_x = scaler.transform(test_x)
        """,
    ),
    "scaled rows that are needed elsewhere stay": (
        """
        X = StandardScaler().fit_transform(X)
        X_train, X_test = train_test_split(X)
        print(X.mean(0))
        """,
        "",
    ),
    "a seed in the loop": (
        """
        net, loader = nn.Linear(4, 3), DataLoader(data, batch_size=8, shuffle=True)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(5):
            torch.manual_seed(42)  # reproducible
            for x, y in loader:
                opt.zero_grad()
                F.cross_entropy(net(x), y).backward()
                opt.step()
        """,
        """
        +torch.manual_seed(42)  # reproducible
        -    torch.manual_seed(42)  # reproducible
        """,
    ),
    "the wrong loader, on the spot": (
        """
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        train_dl, val_dl = DataLoader(a, batch_size=8, shuffle=True), DataLoader(b, batch_size=8)
        for epoch in range(5):
            net.train()
            for x, y in train_dl:
                opt.zero_grad()
                F.cross_entropy(net(x), y).backward()
                opt.step()
            net.eval()
            with torch.no_grad():
                print(sum((net(x).argmax(1) == y).sum().item() for x, y in train_dl))
        """,
        """
        -        print(sum((net(x).argmax(1) == y).sum().item() for x, y in train_dl))
        +        print(sum((net(x).argmax(1) == y).sum().item() for x, y in val_dl))
        """,
    ),
    "a whole model stays, weights are loaded as such": (
        """
        model = torch.load("m.pt", weights_only=False)
        model.eval()
        state = torch.load("c.pt", map_location="cpu", weights_only=False)
        net.load_state_dict(state["net"])
        """,
        """
        -state = torch.load("c.pt", map_location="cpu", weights_only=False)
        +state = torch.load("c.pt", map_location="cpu", weights_only=True)
        """,
    ),
    "loaders of one comprehension are not all shuffled": (
        """
        sets = {"train": TensorDataset(x, y), "val": TensorDataset(a, b)}
        loaders = {name: DataLoader(data, batch_size=8, shuffle=name == "train") for name, data in sets.items()}
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for phase in ["train", "val"]:
                net.train(phase == "train")
                for x, y in loaders[phase]:
                    with torch.set_grad_enabled(phase == "train"):
                        loss = F.cross_entropy(net(x), y)
                        if phase == "train":
                            opt.zero_grad()
                            loss.backward()
                            opt.step()
        """,
        "",
    ),
}


def ask(source: Source) -> list[Checked]:
    return found_in(Unit(source.path, cst.parse_module(source.text), folders_of(source.path, None)), strict=True)


def change(source: Source) -> list[str]:
    """The lines that all fixes take out and put in."""
    after = fixed(source, ask, lambda text: trouble(text) is None, unsafe=True).source.text
    lines = diff(source.text, after, "a").splitlines()[2:]
    return [line for line in lines if line[:1] in "+-"]


@pytest.mark.parametrize("name", MENDED)
def test_what_is_written(name: str) -> None:
    script, wanted = (textwrap.dedent(text).strip("\n") for text in MENDED[name])
    whole = f"{HEAD}{script}\n{LOOP if 'criterion' in script and 'opt' not in script else ''}"
    assert change(Source("script.py", whole)) == wanted.splitlines()


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    model = "import torch.nn as nn\nnet = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))\n"
    (tmp_path / "models.py").write_text(model, encoding="utf-8")
    script = f"{HEAD}from models import net\ncriterion = nn.CrossEntropyLoss()\n{LOOP}"
    source = Source(str(tmp_path / "train.py"), script)
    assert "softmax-before-cross-entropy" in [one.finding.name for one in ask(source)]
    assert change(source) == []


RULES = [
    *("softmax_before_cross_entropy", "sigmoid_before_bce_with_logits", "logits_in_probability_loss"),
    *("broadcast_loss", "arguments_exchanged", "argmax_over_wrong_dimension", "softmax_over_one_value"),
    *("output_range_too_small", "training_data_not_shuffled", "sampler_epoch_not_set", "unsafe_load"),
    *("batch_of_one_with_batchnorm", "mean_of_batch_means", "last_batch_reported_as_epoch"),
    *("metric_from_wrong_counts", "statistics_from_all_data", "same_order_every_epoch", "same_batch_every_step"),
    *("evaluation_on_training_data", "training_on_validation_data", "duplicate_worker_rng", "iterable_not_sharded"),
    *("incomplete_checkpoint", "not_seeded", "reshape_instead_of_transpose", "time_series_split_at_random"),
    *("inputs_and_targets_misaligned", "symmetric_initialisation"),
]


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_a_fix(name: str) -> None:
    rule, scripts = name.replace("_", "-"), vars(import_module(f"trueloop.doctor.rules.{name}"))["READ_FIRES"]
    found = [one for text in scripts.values() for one in ask(Source("script.py", textwrap.dedent(text)))]
    assert any(one.fix is not None for one in found if one.finding.name == rule)
