"""A batch holds NaN or Inf: the data itself is not finite.

Sees: a tensor that a model is called on, or the targets of a loss, hold NaN or Inf, and so does what comes out, or
what the optimizer's step makes of the weights. A mask of zeros and minus infinity is right, and so is a model that
mends its input.

Why it matters: one such value makes the loss and all gradients NaN; after one step all weights are.

Usual causes: a division by the deviation of a constant column; a logarithm of zero; missing values in a table that
were read as NaN; a resize or an augmentation of an empty region.

Fix: find the rows and columns that are named, and mend them where they are made: leave out constant columns or add a
small number to the deviation, fill missing values, use ``torch.log1p``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Called, LossCalled, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.nonfinite import Kept, columns_of, finite, is_mask, keep, rows_of, with_batch
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.trace import Trace


class NonFiniteInput(Rule):
    """Looks at what models and losses are given, and at what comes out where it is not finite."""

    name = "non-finite-input"
    code = 505
    level = "error"
    certainty = "certain"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._told = False
        self._looked = 0
        self._doubtful: tuple[Tensor, str, Place | None] | None = (
            None  # what came out was finite; its slopes may not be
        )

    def called(self, fact: Called) -> Iterator[Finding] | None:
        if self._told or not fact.of.close:
            return None
        self._looked += 1
        for index, tensor in enumerate(tensors_in(fact.inputs, limit=4)):
            if tensor.requires_grad or finite(tensor) or (index and is_mask(tensor)):
                continue
            if not self._models_are_finite():
                return None
            what = f"the input of {fact.of.model.kind}"
            if not all(finite(output) for output in tensors_in(fact.output, limit=4)):
                return self._tell(tensor, what, fact.of.place)
            if fact.of.grad and self._doubtful is None:
                self._doubtful = tensor, what, fact.of.place
        return None

    def stepped(self, fact: Stepped) -> Iterator[Finding] | None:
        """An infinite input that is squashed (by a tanh) gives a finite output, and NaN gradients."""
        doubtful, self._doubtful = self._doubtful, None
        if doubtful is None or self._told or all(finite(one) for one in fact.optimizer.parameters()):
            return None
        return self._tell(*doubtful)

    def loss_called(self, fact: LossCalled) -> Iterator[Finding] | None:
        if self._told or fact.output is None or fact.output.dim():
            return None
        if finite(fact.output) or fact.target.requires_grad or finite(fact.target) or not finite(fact.input):
            return None
        return self._tell(fact.target, f"the targets of {fact.kind}", fact.place) if self._models_are_finite() else None

    def _tell(self, tensor: Tensor, what: str, place: Place | None) -> Iterator[Finding]:
        self._told = True
        rows, columns = rows_of(tensor), columns_of(tensor)
        which = f"sample {rows[0]}" if len(rows) == 1 else f"{len(rows)} of {len(tensor)} samples"
        name = "target" if what.startswith("the targets") else "input"
        path = keep(self.trace, with_batch(self.trace, [Kept(name, f"{what}, called at {place}", tensor)]))
        yield self.finding(
            f"{what} holds {_kinds(tensor)} in {which}" if rows else f"{what} holds {_kinds(tensor)}",
            f"in a batch of shape {tuple(tensor.shape)}",
            *([f"samples {_listed(rows)}"] if rows else []),
            *([f"features {_listed(columns)}"] if columns else []),
            *([f"the batch is kept in {path}"] if path else []),
            place=place,
        )

    def _models_are_finite(self) -> bool:
        """A model may be given what another one made of bad weights: then it is not the data."""
        modules = [model.module for model in self.trace.models]
        return all(finite(p) for module in modules if module is not None for p in module.parameters())

    def passed(self) -> str | None:
        return f"the inputs of {self._looked} passes are finite" if self._looked and not self._told else None


def _kinds(tensor: Tensor) -> str:
    values = tensor.detach()
    kinds = [name for name, there in (("NaN", values.isnan().any()), ("Inf", values.isinf().any())) if there]
    return " and ".join(kinds)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


FIRES = {
    "a constant column": """
        x = torch.randn(96, 5)
        x[:, 2] = 4.0
        x = (x - x.mean(0)) / (x.std(0) * (x.std(0) > 1e-6))
        y = (x[:, 0] > 0).long()
        model = nn.Linear(5, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for index in torch.randperm(96).split(16):
            opt.zero_grad()
            F.cross_entropy(model(x[index]), y[index]).backward()
            opt.step()
    """,
    "the logarithm of zero, squashed": """
        x = torch.arange(96.0).remainder(13).view(32, 3).log()
        y = torch.randn(32, 1)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for index in torch.arange(32).split(8):
            opt.zero_grad()
            F.mse_loss(model(x[index]), y[index]).backward()
            opt.step()
    """,
    "a missing target": """
        x = torch.randn(64, 3)
        y = x[:, :1].clone()
        y[11] = float("nan")
        loader = DataLoader(TensorDataset(x, y), batch_size=16)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(2):
            for a, b in loader:
                loss = nn.MSELoss()(model(a), b)
                opt.zero_grad()
                loss.backward()
                opt.step()
    """,
}

SILENT = {
    "a mask of minus infinity": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
                self.out = nn.Linear(8, 1)
            def forward(self, x, mask):
                return self.out(self.block(x, src_mask=mask))
        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=1e-3)
        mask = nn.Transformer.generate_square_subsequent_mask(6)
        for _ in range(6):
            x = torch.randn(4, 6, 8)
            opt.zero_grad()
            F.mse_loss(net(x, mask), x[..., :1]).backward()
            opt.step()
    """,
    "missing values that the model fills": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.out = nn.Linear(8, 1)
            def forward(self, x):
                return self.out(torch.cat([x.nan_to_num(), x.isnan().float()], 1))
        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(6):
            x = torch.randn(16, 4)
            y = x[:, :1].clone()
            x[torch.rand(16, 4) < 0.2] = float("nan")
            opt.zero_grad()
            F.mse_loss(net(x), y).backward()
            opt.step()
    """,
}
