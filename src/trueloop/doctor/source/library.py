"""What the names of torch and its neighbours mean to a training script."""

from __future__ import annotations

KNOWN = frozenset(
    [
        "torch",
        "torchvision",
        "torchmetrics",
        "numpy",
        "np",
        "sklearn",
        "pandas",
        "scipy",
        "math",
        "random",
        "time",
        "os",
        "sys",
        "tqdm",
        "builtins",
        "collections",
        "itertools",
        "functools",
        "pathlib",
        "json",
        "logging",
        "argparse",
        "copy",
        "matplotlib",
        "datetime",
        "warnings",
        "typing",
        "re",
        "shutil",
        "tempfile",
        "contextlib",
        "dataclasses",
        "string",
        "csv",
        "glob",
        "io",
        "gc",
        "statistics",
        "operator",
        "pickle",
        "rich",
    ]
)
"""Top packages whose functions leave a script's optimizers and models alone when they are handed one."""

LOSSES = {
    "torch.nn.CrossEntropyLoss": "cross_entropy",
    "torch.nn.NLLLoss": "nll_loss",
    "torch.nn.BCELoss": "binary_cross_entropy",
    "torch.nn.BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "torch.nn.MSELoss": "mse_loss",
    "torch.nn.L1Loss": "l1_loss",
    "torch.nn.SmoothL1Loss": "smooth_l1_loss",
    "torch.nn.HuberLoss": "huber_loss",
    "torch.nn.KLDivLoss": "kl_div",
    "torch.nn.MultiLabelSoftMarginLoss": "multilabel_soft_margin_loss",
    "torch.nn.MultiMarginLoss": "multi_margin_loss",
    "torch.nn.PoissonNLLLoss": "poisson_nll_loss",
}
LOSS_FUNCTIONS = {f"torch.nn.functional.{name}": name for name in LOSSES.values()}

TWO_MODES = frozenset(
    f"torch.nn.{name}"
    for name in [
        "Dropout",
        "Dropout1d",
        "Dropout2d",
        "Dropout3d",
        "AlphaDropout",
        "FeatureAlphaDropout",
        "BatchNorm1d",
        "BatchNorm2d",
        "BatchNorm3d",
        "SyncBatchNorm",
        "LazyBatchNorm1d",
        "LazyBatchNorm2d",
        "LazyBatchNorm3d",
        "RReLU",
        "TransformerEncoderLayer",
        "TransformerDecoderLayer",
        "Transformer",
    ]
)
"""Layers that do one thing in train mode and another in eval mode."""

CONTAINERS = frozenset(("torch.nn.Sequential", "torch.nn.ModuleList", "torch.nn.ModuleDict"))

ACTIVATIONS = {
    "torch.nn.Softmax": "softmax",
    "torch.nn.Softmax2d": "softmax",
    "torch.nn.LogSoftmax": "log_softmax",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.LogSigmoid": "logsigmoid",
    "torch.nn.ReLU": "relu",
    "torch.nn.Tanh": "tanh",
    "torch.nn.Flatten": "flatten",
    "torch.nn.Identity": "identity",
    "torch.nn.Dropout": "dropout",
}
"""Layers by the operation that they are."""

RESHAPES = frozenset(
    [
        "view",
        "reshape",
        "squeeze",
        "unsqueeze",
        "flatten",
        "permute",
        "transpose",
        "t",
        "T",
        "mT",
        "contiguous",
        "clone",
        "to",
        "cuda",
        "cpu",
        "float",
        "double",
        "half",
        "type",
        "type_as",
        "getitem",
        "stack",
        "cat",
        "chunk",
        "split",
        "unbind",
        "ravel",
        "expand",
        "swapaxes",
        "movedim",
        "identity",
        "dropout",
        "bfloat16",
        "requires_grad_",
        "item_of",
        "narrow",
        "unflatten",
    ]
)
"""Operations that leave each value as it is: what was said of the input holds for the output."""

WRAPPERS = frozenset(
    (
        "torch.nn.parallel.DistributedDataParallel",
        "torch.nn.DataParallel",
        "torch.compile",
        "torch.jit.script",
        "torch.nn.parallel.DataParallel",
    )
)
"""What these return is, for a rule, the model that they were given."""

ROOTS = frozenset(
    [
        "torch",
        "torchvision",
        "lightning",
        "pytorch_lightning",
        "transformers",
        "accelerate",
        "ignite",
        "sklearn",
        "fastai",
        "torchmetrics",
        "fabric",
        "deepspeed",
        "lightning_fabric",
        "trueloop",
    ]
)
"""A file that mentions none of these is not interpreted."""

_SHORT = (
    ("torch.nn.modules.", "torch.nn."),
    ("torch.autograd.variable.", "torch.autograd."),
    ("torch.utils.data.dataloader.", "torch.utils.data."),
    ("torch.utils.data.dataset.", "torch.utils.data."),
    ("torch.utils.data.sampler.", "torch.utils.data."),
    ("torch.cuda.amp.", "torch.amp."),
    ("torch.distributed.optim.", "torch.optim."),
)
_SAME = {
    "torch.softmax": "torch.nn.functional.softmax",
    "torch.log_softmax": "torch.nn.functional.log_softmax",
    "torch.sigmoid": "torch.nn.functional.sigmoid",
    "torch.special.expit": "torch.nn.functional.sigmoid",
    "torch.nn.parallel.distributed.DistributedDataParallel": "torch.nn.parallel.DistributedDataParallel",
    "torch.nn.Module.Module": "torch.nn.Module",
    "torch.autograd.grad_mode.no_grad": "torch.no_grad",
    "torch.autograd.no_grad": "torch.no_grad",
    "torch.autograd.inference_mode": "torch.inference_mode",
    "torch.nn.utils.clip_grad.clip_grad_norm_": "torch.nn.utils.clip_grad_norm_",
    "torch.nn.utils.clip_grad_norm": "torch.nn.utils.clip_grad_norm_",
    "numpy.random.seed": "numpy.random.seed",
}


def canonical(name: str) -> str:
    """A library name in its usual form.

    Example:
        >>> canonical("torch.nn.modules.loss.CrossEntropyLoss")
        'torch.nn.CrossEntropyLoss'
        >>> canonical("torch.softmax")
        'torch.nn.functional.softmax'
    """
    for long, short in _SHORT:
        if name.startswith(long):
            rest = name[len(long) :]
            name = short + (rest.rpartition(".")[2] if long == "torch.nn.modules." else rest)
    return _SAME.get(name, name)


def is_layer(kind: str) -> bool:
    """Whether a class of this name is a module of torch's, not a loss."""
    last = kind.rpartition(".")[2]
    return kind.startswith("torch.nn.") and kind.count(".") == 2 and last[:1].isupper() and last != "Parameter"


def is_optimizer(kind: str) -> bool:
    """Whether a class of this name is an optimizer.

    Example:
        >>> is_optimizer("torch.optim.AdamW"), is_optimizer("torch.optim.lr_scheduler.StepLR")
        (True, False)
    """
    last = kind.rpartition(".")[2]
    return (kind.startswith("torch.optim.") and kind.count(".") == 2 and last[:1].isupper()) or kind in (
        "transformers.AdamW",
        "transformers.Adafactor",
        "torch.optim.adamw.AdamW",
    )


def is_scheduler(kind: str) -> bool:
    """Whether a class of this name is a schedule of the learning rate."""
    return kind.startswith("torch.optim.lr_scheduler.") or kind == "torch.optim.swa_utils.SWALR"


def is_scaler(kind: str) -> bool:
    """Whether a class of this name is a GradScaler."""
    return kind.startswith("torch.") and kind.endswith(".GradScaler")


def is_module(kind: str) -> bool:
    """Whether instances of a class that descends from this one are modules."""
    last = kind.rpartition(".")[2]
    return (
        is_layer(kind)
        or kind in ("torch.nn.Module", "torch.jit.ScriptModule")
        or last in ("LightningModule", "PreTrainedModel")
        or (kind.startswith("torchvision.models.") and last[:1].islower())
    )
