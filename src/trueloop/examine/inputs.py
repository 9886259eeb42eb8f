"""Are the inputs in a range that layers can learn from, and the same in validation?"""

from __future__ import annotations

from itertools import islice

from torch import Tensor

from trueloop.doctor.listen import listening
from trueloop.doctor.rules.inputs_not_scaled import InputsNotScaled
from trueloop.doctor.rules.non_finite_input import NonFiniteInput
from trueloop.doctor.rules.preprocessing_differs import PreprocessingDiffers
from trueloop.examine.result import Examination, failed, passed, unknown
from trueloop.examine.subject import Subject, inputs_of
from trueloop.finite import NotFinite

BATCHES = 4
HELD_OUT = 8


def inputs(subject: Subject) -> Examination:
    """Takes a few steps and evaluates, and lets the rules that look at inputs listen."""
    ritual = subject.ritual()
    batches = subject.first(BATCHES)
    if not batches:
        return unknown("no batch came")
    with listening([InputsNotScaled, NonFiniteInput, PreprocessingDiffers]) as trace:
        try:
            for batch in (batches * BATCHES)[:BATCHES]:
                ritual.take(subject.objective, [batch], 0)
            if subject.run.held_out is not None:
                subject.evaluated(islice(subject.batches(subject.run.held_out), HELD_OUT))
        except NotFinite:
            pass
    if trace.findings:
        return failed(*trace.findings)
    tensors = [one for one in inputs_of(batches[0]) if one.numel() and not one.is_complex()]
    return passed("; ".join(map(_described, tensors[:3]))) if tensors else unknown("the inputs are no tensors")


def _described(tensor: Tensor) -> str:
    """Range and scale in words."""
    values = tensor.detach().double()
    low, high = float(values.min()), float(values.max())
    shape = " x ".join(map(str, tensor.shape[1:])) or "1"
    if not tensor.is_floating_point():
        return f"inputs of {shape} whole numbers from {low:g} to {high:g}"
    spread = float(values.std(correction=0))
    return f"inputs of {shape}: from {low:.3g} to {high:.3g}, mean {float(values.mean()):.3g}, deviation {spread:.3g}"
