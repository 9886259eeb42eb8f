"""Which rule speaks: one cause, one finding. The rule nearest to the cause does, and names what else it explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trueloop.doctor.findings import Finding

KEPT = "the batch is kept in "
"""How evidence begins that names a file."""

MISTAKES_OF_ORDER = (
    "detached-loss",
    "training-under-no-grad",
    "step-before-backward",
    "gradients-zeroed-before-step",
    "missing-optimizer-step",
)

EXPLAINS: dict[str, tuple[str, ...]] = {
    "stale-optimizer": (
        "parameters-not-optimized",
        "parameters-without-gradient",
        "missing-zero-grad",
        "weights-do-not-move",
        "missing-optimizer-step",
        "not-learning",
        "loss-is-constant",
    ),
    "parameters-not-optimized": ("missing-zero-grad", "parameters-without-gradient"),
    **dict.fromkeys(
        MISTAKES_OF_ORDER,
        ("parameters-without-gradient", "weights-do-not-move", "loss-is-constant", "not-learning", "input-ignored"),
    ),
    "softmax-over-one-value": (
        "logits-in-probability-loss",
        "input-ignored",
        "not-learning",
        "loss-is-constant",
        "weights-do-not-move",
        "initial-loss-off",
        "regression-loss-on-classes",
        "parameters-without-gradient",
        "vanishing-gradients",
    ),
    "argmax-over-wrong-dimension": (
        "logits-in-probability-loss",
        "softmax-over-one-value",
        "input-ignored",
        "not-learning",
        "batch-samples-mix",
        "initial-loss-off",
    ),
    "softmax-before-cross-entropy": ("logits-in-probability-loss", "input-ignored", "not-learning", "initial-loss-off"),
    "arguments-exchanged": (
        "logits-in-probability-loss",
        "targets-out-of-range",
        "learning-rate-too-high",
        "initial-loss-off",
        "exploding-gradients",
        "non-finite-value",
    ),
    "broadcast-loss": (
        "input-ignored",
        "not-learning",
        "initial-loss-off",
        "learning-rate-too-high",
        "exploding-gradients",
        "underfitting",
    ),
    "regression-loss-on-classes": ("loss-is-constant", "weights-do-not-move", "initial-loss-off"),
    "reshape-instead-of-transpose": ("batch-samples-mix", "not-learning"),
    "preprocessing-differs": ("inputs-not-scaled",),
    "non-finite-input": (
        "non-finite-value",
        "weights-do-not-move",
        "not-learning",
        "loss-is-constant",
        "input-ignored",
    ),
    "same-batch-every-step": ("same-order-every-epoch", "training-data-not-shuffled", "overfitting"),
    "sampler-epoch-not-set": ("same-order-every-epoch", "training-data-not-shuffled"),
    "training-data-not-shuffled": ("same-order-every-epoch", "not-learning", "input-ignored"),
    "loss-divided-after-backward": ("accumulation-not-divided",),
    "inputs-and-targets-misaligned": ("not-learning", "input-ignored", "underfitting"),
    "dropout-always-on": ("evaluation-in-train-mode", "batch-samples-mix"),
    "retained-graph": ("memory-grows",),
    "non-finite-value": (
        "exploding-gradients",
        "not-learning",
        "weights-do-not-move",
        "loss-is-constant",
        "dead-units",
        "input-ignored",
    ),
    "exploding-gradients": ("learning-rate-too-high",),
    "learning-rate-too-high": (
        "exploding-gradients",
        "dead-units",
        "saturated-activations",
        "vanishing-gradients",
        "not-learning",
        "input-ignored",
    ),
    "missing-zero-grad": (
        "learning-rate-too-high",
        "exploding-gradients",
        "non-finite-value",
        "saturated-activations",
        "dead-units",
        "not-learning",
        "input-ignored",
        "weights-do-not-move",
        "loss-is-constant",
    ),
    "clip-out-of-order": ("not-learning", "learning-rate-too-low"),
    "scaler-misused": ("not-learning", "weights-do-not-move", "learning-rate-too-low", "exploding-gradients"),
    "scheduler-wrong-cadence": ("not-learning", "weights-do-not-move", "loss-is-constant", "learning-rate-too-low"),
    "accumulation-not-divided": ("learning-rate-too-high", "exploding-gradients"),
    "learning-rate-too-low": ("not-learning",),
    # Over different batches a loss is constant only where it does not depend on them; then there is nothing to move by.
    "loss-is-constant": ("weights-do-not-move", "not-learning", "input-ignored"),
    "weights-do-not-move": ("not-learning", "learning-rate-too-low"),
    "symmetric-initialisation": ("not-learning", "input-ignored", "dead-units"),
    "dead-units": ("not-learning", "input-ignored", "parameters-without-gradient"),
    "vanishing-gradients": ("input-ignored",),
    "output-range-too-small": ("not-learning", "saturated-activations", "initial-loss-off", "input-ignored"),
    "inputs-not-scaled": (
        "not-learning",
        "learning-rate-too-high",
        "initial-loss-off",
        "dead-units",
        "saturated-activations",
        "exploding-gradients",
    ),
    "leak-between-splits": ("evaluation-on-training-data", "no-validation"),
    "training-on-validation-data": (
        "leak-between-splits",
        "evaluation-on-training-data",
        "evaluation-builds-graph",
        "training-in-eval-mode",
        "no-validation",
    ),
    "evaluation-on-training-data": ("no-validation",),
    "train-method-overridden": ("evaluation-in-train-mode", "training-in-eval-mode"),
}
"""A rule, and those that it silences (RULES.md, "Which rule speaks"; pairs beyond that page are ours)."""


def nearest_to_the_cause(findings: Sequence[Finding]) -> list[Finding]:
    """Leaves out what another finding explains, and has that one name it.

    Args:
        findings: in any order.

    Returns:
        Those that stay, the gravest first, then by step.

    Example:
        >>> seen = [Finding(name, 0, "error", "certain", "…") for name in ("not-learning", "broadcast-loss")]
        >>> [(finding.name, finding.explains) for finding in nearest_to_the_cause(seen)]
        [('broadcast-loss', ('not-learning',))]
    """
    names = {finding.name for finding in findings}
    explained: dict[str, str] = {}
    for cause in (name for name in EXPLAINS if name in names):
        if cause not in explained:
            explained |= {
                name: cause for name in EXPLAINS[cause] if name in names and name not in explained and name != cause
            }
    kept = [
        _with_files(
            finding.explaining(tuple(name for name, cause in explained.items() if cause == finding.name)),
            [one for one in findings if explained.get(one.name) == finding.name],
        )
        for finding in findings
        if finding.name not in explained
    ]
    grave = {"error": 0, "warning": 1, "note": 2}
    return sorted(kept, key=lambda finding: (grave[finding.level], finding.step or 0, finding.code))


def _with_files(finding: Finding, others: Sequence[Finding]) -> Finding:
    """A file that was kept beside the run is named also where another finding speaks."""
    more = [line for one in others for line in one.evidence if line.startswith(KEPT) and line not in finding.evidence]
    return replace(finding, evidence=(*finding.evidence, *more)) if more else finding
