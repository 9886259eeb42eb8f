"""The best model, or its settings, are chosen by the test score.

Sees: ``if test_acc > best:`` keeps the score and the weights (``state_dict``, ``torch.save``, a copy), or the one of
several numbers that a loop tries, the kept score is used again, and nothing in the script is called validation.

Why it matters: the best of many epochs on the test set is better than the model is: some of it is luck with just these
samples. A test score is honest only if nothing was chosen by it.

Usual causes: there are two sets only, and early stopping or the best checkpoint needs one.

Fix: take a validation set from the training data, choose by that, and look at the test set once, at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source.events import Iterated
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.values import Items, Value, constant

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program

_TEST = re.compile(r"(^|[_.])test(_|$)", re.IGNORECASE)
_VALIDATION = re.compile(r"(?<![a-zA-Z])(val|valid|validation|dev|eval|holdout|held)(?![a-zA-Z]|\()", re.IGNORECASE)
_WEIGHTS = re.compile(r"([\w.]+) = (?:copy\.)?(?:deepcopy\()?[\w.]+\.state_dict\(")
_KEEPS = re.compile(r"\b(state_dict|torch\.save|deepcopy)\(")


class SelectedOnTest(Rule):
    """Is read only."""

    name = "selected-on-test"
    code = 605
    level = "warning"
    certainty = "likely"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """A comparison of a test score with the best one so far keeps the score, and the weights or a setting."""
    import libcst as cst
    from libcst import matchers

    text = program.unit.code
    if "backward(" not in text or "best" not in text.lower() or _VALIDATION.search(text.replace(".eval(", "")):
        return
    for node in matchers.findall(program.unit.tree, matchers.If(test=matchers.Comparison())):
        kept = _kept(program, node) if isinstance(node, cst.If) else None
        if kept is None or not isinstance(node, cst.If):
            continue
        score, best = kept
        used = len(re.findall(rf"(?<![\w.]){re.escape(best)}(?!\w)", text)) >= 4  # begun, compared, kept, and used
        weights = _WEIGHTS.findall(program.unit.text(node.body))
        if not used and not any(f"load_state_dict({name})" in text for name in weights):
            continue
        setting = "" if weights or _KEEPS.search(program.unit.text(node.body)) else _setting(program, node)
        what, kept_too = (f"`{setting}` is", f"`{setting}`") if setting else ("the best weights are", "the weights")
        finding = program.finding(
            SelectedOnTest,
            f"{what} chosen by `{score}`: that score is no test any more",
            f"`{best}` and {kept_too} are kept whenever `{score}` is better, and the script has no validation set",
            at=program.line(node),
        )
        yield Checked(finding)


def _kept(program: Program, node: cst.If) -> tuple[str, str] | None:
    """The score that is called test and the name that keeps the best of them, where weights or a setting are kept."""
    import libcst as cst

    test = node.test
    if not isinstance(test, cst.Comparison) or len(test.comparisons) != 1:
        return None
    told = program.unit.text
    if not isinstance(test.comparisons[0].operator, (cst.GreaterThan, cst.LessThan, cst.GreaterThanEqual)):
        return None
    sides = (told(test.left), told(test.comparisons[0].comparator))
    scores = [
        side
        for side in sides
        if "best" not in side.lower() and (_TEST.search(side) or _is_of_test(program, node, side))
    ]
    bests = [side for side in sides if "best" in side.lower()]
    if len(scores) != 1 or len(bests) != 1:
        return None
    if not _KEEPS.search(told(node.body)) and not _setting(program, node):
        return None
    names = [re.sub(r"\W", "", part) for part in re.findall(r"[^\n]*=[^\n]*", told(node.body)) if scores[0] in part]
    return (scores[0], bests[0]) if any(re.sub(r"\W", "", bests[0]) in name for name in names) else None


def _is_of_test(program: Program, node: cst.If, name: str) -> bool:
    """Whether a score without such a name was made of test data, in a line above, in the same block."""
    import libcst as cst

    for line in blocks.block(program.unit, node):
        small = line.body[0] if isinstance(line, cst.SimpleStatementLine) else None
        if line is node:
            break
        if isinstance(small, cst.Assign) and program.unit.text(small.targets[0].target) == name:
            return any(_TEST.search(used) for used in blocks.names(small.value))
    return False


def _setting(program: Program, node: cst.If) -> str:
    """Which of several numbers that a loop around it tries is kept; ``""`` if none is."""
    import libcst as cst

    if "Fold" in program.unit.code:
        return ""  # each is tested on another part
    loops = {id(one.node): one.over for run in program.runs for one in run.of(Iterated)}
    kept = {name for one in blocks.walk(node.body) if isinstance(one, cst.Assign) for name in blocks.names(one.value)}
    for loop in blocks.around(program.unit, node):
        name = loop.target.value if isinstance(loop, cst.For) and isinstance(loop.target, cst.Name) else ""
        if name in kept and _are_numbers(loops.get(id(loop))):
            return name
    return ""


def _are_numbers(over: Value | None) -> bool:
    tried = over.items or () if isinstance(over, Items) else ()
    return len(tried) > 1 and all(type(constant(one)) in (int, float) for one in tried)


READ_FIRES = {
    "the best rate": """
        import torch
        RATES = [1e-3, 3e-3, 1e-2]
        def main(train_loader, test_loader):
            best_acc, best_rate = 0.0, None
            for rate in RATES:
                net = torch.nn.Linear(4, 3)
                opt = torch.optim.Adam(net.parameters(), lr=rate)
                for x, y in train_loader:
                    opt.zero_grad()
                    torch.nn.functional.cross_entropy(net(x), y).backward()
                    opt.step()
                test_acc = accuracy(net, test_loader)
                if test_acc > best_acc:
                    best_acc, best_rate = test_acc, rate
            print("test accuracy", best_acc, "with", best_rate)
    """,
    "the loader alone is called test": """
        import copy
        import torch
        best, best_state = 0.0, None
        for epoch in range(9):
            for x, y in train_loader:
                opt.zero_grad()
                torch.nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            score = accuracy(net, test_loader)
            if score > best:
                best = score
                best_state = copy.deepcopy(net.state_dict())
        net.load_state_dict(best_state)
        print("test accuracy", best)
    """,
    "the best weights are taken back and tested": """
        import copy
        import torch
        best_acc, best_weights = 0.0, None
        for epoch in range(9):
            for x, y in train_loader:
                opt.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            test_acc = accuracy(model, test_loader)
            if test_acc > best_acc:
                best_acc, waited = test_acc, 0
                best_weights = copy.deepcopy(model.state_dict())
        model.load_state_dict(best_weights)
        print(accuracy(model, test_loader))
    """,
    "the best epoch": """
        import torch
        from torch import nn
        def main(model, train_loader, test_loader):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            best_acc = 0
            for epoch in range(10):
                for x, y in train_loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    opt.step()
                test_acc = score(model, test_loader)
                if test_acc > best_acc:
                    best_acc = test_acc
                    torch.save(model.state_dict(), "best.pt")
            print("test accuracy", best_acc)
    """,
}

READ_SILENT = {
    "the best epoch is told, and no more; the best rate by the training loss": """
        import torch
        def main(train_loader, test_loader):
            best_acc, best_epoch, best_loss, best_rate = 0.0, None, 9.0, None
            for rate in (1e-3, 1e-2):
                net = torch.nn.Linear(4, 3)
                opt = torch.optim.Adam(net.parameters(), lr=rate)
                for epoch in range(9):
                    for x, y in train_loader:
                        opt.zero_grad()
                        loss = torch.nn.functional.cross_entropy(net(x), y)
                        loss.backward()
                        opt.step()
                    test_acc = accuracy(net, test_loader)
                    if test_acc > best_acc:
                        best_acc, best_epoch = test_acc, epoch
                if loss < best_loss:
                    best_loss, best_rate = loss, rate
            print("test accuracy", best_acc, "in", best_epoch, best_loss, best_rate)
    """,
    "chosen by validation": """
        import torch
        from torch import nn
        def main(model, train_loader, val_loader, test_loader):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            best_acc = 0
            for epoch in range(10):
                for x, y in train_loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    opt.step()
                acc = score(model, val_loader)
                if acc > best_acc:
                    best_acc, test_acc = acc, score(model, test_loader)
                    torch.save(model.state_dict(), "best.pt")
            print("test accuracy", test_acc, best_acc)
    """,
}
