"""What of a file is worth reading: most functions of most files have nothing to do with training.

Only words are looked at here, never what they mean: a file or function that has none of these words, nor calls one that
has, can hold no finding. What is found is found by reading.
"""

from __future__ import annotations

import re

from trueloop.doctor.source.library import ROOTS

TELLING = frozenset(
    [
        "backward",
        "zero_grad",
        "manual_backward",
        "optim",
        "Optimizer",
        "Module",
        "LightningModule",
        "CrossEntropyLoss",
        "cross_entropy",
        "NLLLoss",
        "nll_loss",
        "BCELoss",
        "binary_cross_entropy",
        "BCEWithLogitsLoss",
        "binary_cross_entropy_with_logits",
        "KLDivLoss",
        "kl_div",
        "MSELoss",
        "mse_loss",
        "L1Loss",
        "l1_loss",
        "SmoothL1Loss",
        "smooth_l1_loss",
        "HuberLoss",
        "huber_loss",
        "dropout",
        "dropout2d",
        "Dropout",
        "scaled_dot_product_attention",
        "weights_only",
        "DataLoader",
        "random_split",
        "GradScaler",
        "lr_scheduler",
        "no_grad",
        "fit_transform",
        "fit",
        "argmax",
        "detect_anomaly",
        "set_detect_anomaly",
        "IterableDataset",
        "worker_init_fn",
        "state_dict",
        "manual_seed",
    ]
)
_WORDS = re.compile(r"\w+")
_DEFINES = re.compile(r"^([ \t]*)(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)


def worth_reading(text: str) -> bool:
    """Whether a file can hold a finding at all.

    Example:
        >>> worth_reading("import torch"), worth_reading("import torch\\nloss.backward()")
        (False, True)
    """
    return any(root in text for root in ROOTS) and worth_following(text)


def worth_following(text: str) -> bool:
    """Whether what a file imports from next to it can matter: a loop over a model need not name torch.

    Example:
        >>> worth_following("def train(model, loss): loss(model()).backward()")
        True
    """
    return not TELLING.isdisjoint(_WORDS.findall(text))


def telling_functions(text: str) -> set[str]:
    """The names of the functions that use one of the words, or the name of such a function.

    Example:
        >>> sorted(telling_functions("def a():\\n    b()\\ndef b():\\n    x.backward()\\ndef c():\\n    pass"))
        ['a', 'b']
    """
    words: dict[str, set[str]] = {}
    heads = list(_DEFINES.finditer(text))
    for number, head in enumerate(heads):
        depth = len(head[1])
        end = next((other.start() for other in heads[number + 1 :] if len(other[1]) <= depth), len(text))
        words.setdefault(head[2], set()).update(_WORDS.findall(text, head.end(), end))
    telling = {name for name, used in words.items() if not TELLING.isdisjoint(used)}
    left = set(words) - telling
    while True:
        more = {name for name in left if not telling.isdisjoint(words[name])}
        if not more:
            return telling
        telling |= more
        left -= more
