"""A file is loaded in a way that runs the code in it.

Sees: ``torch.load(…, weights_only=False)`` of a file; not where a comment by it gives the reason.

Why it matters: such a file is a pickle, and a pickle may hold any program: whoever wrote it runs what they like, with
the rights of whoever loads it.

Usual causes: a checkpoint that holds more than tensors would not load otherwise; a line copied from older code.

Fix: save a ``state_dict`` and load it with ``weights_only=True``; keep weights in safetensors files; allow single
classes by ``torch.serialization.add_safe_globals``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.rule import Rule
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.events import Called, ModeSet, Operated
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.values import Constant, Object, Unknown
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program


class UnsafeLoad(Rule):
    """Is read only."""

    name = "unsafe-load"
    code = 801
    level = "warning"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """``torch.load`` is told to run what it finds."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(Operated):
            only = event.kwargs.get("weights_only")
            if event.name != "torch.load" or not isinstance(only, Constant) or only.value is not False:
                continue
            written = given(event.node, "weights_only")
            if run.entry is not None and (written is None or event.at.unit.text(written) != "False"):
                continue  # a default that whoever calls the function may change
            if id(event.node) in told or _is_own(event) or _says_why(program, event):
                continue
            told.add(id(event.node))
            finding = program.finding(
                UnsafeLoad, "this load runs whatever code the file holds", "`weights_only=False`", at=event
            )
            yield Checked(finding, _mended(program, run, event))
        for event in _unpickled(program, run):
            if id(event.node) not in told:
                told.add(id(event.node))
                finding = program.finding(
                    UnsafeLoad,
                    "this load runs whatever code the file holds",
                    f"`{event.at.unit.text(event.node)}` gives the weights, and the script does not write that file",
                    at=event,
                    help="keep weights by `torch.save`, and load them by `torch.load(file, weights_only=True)`",
                )
                yield Checked(finding)


def _unpickled(program: Program, run: Run) -> list[Operated]:
    """The loads by pickle whose result a model is given as its weights."""
    loads = {id(event.result): event for event in run.of(Operated) if event.name in ("pickle.load", "joblib.load")}
    text = program.unit.code
    if not loads or "pickle.dump" in text or "joblib.dump" in text:
        return []
    takes = [event for event in run.of(Operated) if event.name == "Module.load_state_dict" and len(event.args) > 1]
    return [loads[id(one)] for event in takes for one in ancestors(event.args[1]) if id(one) in loads]


def _is_own(event: Operated) -> bool:
    """Whether the bytes are in memory already: no file of somebody else's."""
    file = event.args[0] if event.args else event.kwargs.get("f")
    return isinstance(file, (Object, Unknown)) and file.kind == "io.BytesIO"


def _says_why(program: Program, event: Operated) -> bool:
    """Whether a comment by the call gives a reason for the option."""
    comments = [line.partition("#")[2] for line in program.text_around(event, above=COMMENTS).splitlines()]
    return any("weights_only" in comment for comment in comments)


COMMENTS = 3
"""Lines above a call in which a reason may stand."""


def _mended(program: Program, run: Run, event: Operated) -> Fix | None:
    """Tensors only; not where what is loaded is a model, which is more than its weights."""
    targets = [*(one.target for one in run.of(Called)), *(one.target for one in run.of(ModeSet))]
    if any(one is event.result for target in targets for one in ancestors(target)):
        return None
    value = given(event.node, "weights_only")
    return None if value is None else together("load tensors only", put(program, value, "True"))


READ_FIRES = {
    "weights by pickle": """
        import pickle
        import torch
        model = torch.nn.Linear(4, 2)
        with open("weights.pkl", "rb") as file:
            model.load_state_dict(pickle.load(file))
        torch.nn.functional.cross_entropy(model(x), y).backward()
    """,
    "weights_only=False": """
        import torch
        model.load_state_dict(torch.load("best.pt", weights_only=False))
    """,
}

READ_SILENT = {
    "bytes that were handed in": """
        import io
        import torch

        def take(state, name, value: io.BytesIO):
            state[name] = torch.load(value, weights_only=False)
    """,
    "words by pickle": """
        import pickle
        import torch
        with open("words.pkl", "rb") as file:
            words = pickle.load(file)
        model = torch.nn.Embedding(len(words), 4)
        model.load_state_dict(torch.load("model.pt", weights_only=True))
        torch.nn.functional.cross_entropy(model(x), y).backward()
    """,
    "left to whoever calls": """
        import torch

        def load(path, model, weights_only=False):
            model.load_state_dict(torch.load(path, weights_only=weights_only))
    """,
    "tensors only": """
        import torch
        model.load_state_dict(torch.load("best.pt", weights_only=True))
        model.load_state_dict(torch.load("best.pt"))
    """,
    "bytes that were there before": """
        import io
        import torch

        def copied(thing):
            buffer = io.BytesIO()
            torch.save(thing, buffer)
            buffer.seek(0)
            return torch.load(buffer, weights_only=False)
    """,
    "on purpose, and said": """
        import torch

        # weights_only=False: our own files, which hold whole objects
        state = torch.load("run.pt", weights_only=False)
    """,
}
