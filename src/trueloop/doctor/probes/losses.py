"""Listens to torch's loss functions; the modules (``nn.CrossEntropyLoss``) call them, so one ear hears both."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

import torch
from torch.nn import functional

from trueloop.doctor.facts import LossCalled
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.readings import readable
from trueloop.doctor.trace import Trace

LOSSES = (
    "cross_entropy",
    "nll_loss",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
    "gaussian_nll_loss",
    "poisson_nll_loss",
    "soft_margin_loss",
    "multilabel_soft_margin_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "hinge_embedding_loss",
)
"""Those of two arguments, what was predicted and what is right, in this order."""


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; nothing but the patches has to be taken out."""
    for kind in LOSSES:
        patches.replace(functional, kind, partial(_listening, trace, kind))
    return lambda: None


@cache
def _arguments(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def _listening(trace: Trace, kind: str, original: Any) -> Any:
    names = _arguments(original)
    first, second = names[:2]

    @wraps(original)
    def loss(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or trace.deaf or trace.dozes or threading.get_ident() != trace.thread:
            return original(*args, **kwargs)
        output, error = None, None
        try:
            output = original(*args, **kwargs)
        except Exception as raised:
            error = raised
            raise
        finally:
            if trace.wants(LossCalled):
                given = {**dict(zip(names, args)), **kwargs}  # noqa: B905 - where it is called wrongly, it has raised
                x, y = given.pop(first, None), given.pop(second, None)
                if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
                    # in a forward it is that pass's own, such as the loss of a quantizer
                    of = next((running for _, running in trace.running if running is not None), trace.last_pass)
                    trace.guarded(_tell)(trace, LossCalled(kind, x, y, given, output, error, of, here()))
        return output

    return loss


def _tell(trace: Trace, fact: LossCalled) -> None:
    output = fact.output
    if fact.of is not None and fact.of.close and output is not None and output.dim() == 0 and readable(output):
        fact.of.losses.append(float(output.detach()))
    trace.tell(fact)
